// A JSON-RPC client with the habits of Longhorn's: requests indented by tabs with the keys in
// the order id, jsonrpc, method, params; params that marshal to {} sent as null; ids from a
// random number on; up to 1024 requests outstanding on one connection, replies matched by id.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"sync"
	"time"
)

type request struct {
	ID      uint32      `json:"id"`
	Version string      `json:"jsonrpc"`
	Method  string      `json:"method"`
	Params  interface{} `json:"params"`
}

type response struct {
	ID      uint32          `json:"id"`
	Version string          `json:"jsonrpc"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *responseError  `json:"error,omitempty"`
}

type responseError struct {
	Code    int32  `json:"code"`
	Message string `json:"message"`
}

func (e *responseError) Error() string {
	return fmt.Sprintf("code %d: %s", e.Code, e.Message)
}

const maxOutstanding = 1024

type client struct {
	conn    net.Conn
	encoder *json.Encoder
	slots   chan struct{}

	mutex   sync.Mutex
	lastID  uint32
	waiting map[uint32]chan response
	broken  error
}

func dial(path string) (*client, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	c := &client{
		conn:    conn,
		encoder: json.NewEncoder(conn),
		slots:   make(chan struct{}, maxOutstanding),
		lastID:  uint32(rand.Intn(10000)),
		waiting: map[uint32]chan response{},
	}
	c.encoder.SetIndent("", "\t")
	go c.receive()
	return c, nil
}

func (c *client) receive() {
	decoder := json.NewDecoder(c.conn)
	for {
		var reply response
		if err := decoder.Decode(&reply); err != nil {
			c.mutex.Lock()
			c.broken = err
			for _, channel := range c.waiting {
				close(channel)
			}
			c.waiting = map[uint32]chan response{}
			c.mutex.Unlock()
			return
		}
		c.mutex.Lock()
		channel := c.waiting[reply.ID]
		delete(c.waiting, reply.ID)
		c.mutex.Unlock()
		if channel != nil {
			channel <- reply
		}
	}
}

// call decodes the result into result, with Go's rules for its type, and fails if it does not fit.
func (c *client) call(method string, params, result interface{}) error {
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	encoded, err := json.Marshal(params)
	if err != nil {
		return err
	}
	message := request{Version: "2.0", Method: method}
	if string(encoded) != "{}" {
		message.Params = params
	}
	channel := make(chan response, 1)
	c.mutex.Lock()
	if c.broken != nil {
		c.mutex.Unlock()
		return c.broken
	}
	c.lastID++
	message.ID = c.lastID
	c.waiting[message.ID] = channel
	err = c.encoder.Encode(message)
	c.mutex.Unlock()
	if err != nil {
		return err
	}
	select {
	case reply, open := <-channel:
		switch {
		case !open:
			return errors.New("the connection ended")
		case reply.Version != "2.0":
			return fmt.Errorf("%s: jsonrpc is %q", method, reply.Version)
		case reply.Error != nil:
			return reply.Error
		}
		if err := json.Unmarshal(reply.Result, result); err != nil {
			return fmt.Errorf("%s: %s does not fit: %w", method, reply.Result, err)
		}
		return nil
	case <-time.After(60 * time.Second):
		return fmt.Errorf("%s: no reply in 60 s", method)
	}
}
