// Brings a replica up to date as Longhorn's engine does, by the calls of its Go client: what
// differs is found by checksums per cluster and copied, the rest stays. Arguments: the socket,
// and the files of the source's and the destination's store. Prints what it did as JSON.
package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"
)

const (
	window = 256 // clusters asked for, and copied, at a time
	mib    = 1 << 20
)

type summary struct {
	Mismatching []uint64 `json:"mismatching"`
	Copied      uint64   `json:"copied"`
	Unmapped    uint64   `json:"unmapped"`
	Checksum    uint64   `json:"checksum"`
	Outstanding int      `json:"outstanding"`
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func check(holds bool, format string, arguments ...interface{}) {
	if !holds {
		panic(fmt.Errorf(format, arguments...))
	}
}

// refused is for calls that have to fail with a code, and a message if one is given.
func refused(err error, code int32, message string) {
	var reply *responseError
	check(errors.As(err, &reply), "no error reply but %v", err)
	check(reply.Code == code, "code is %d (%s), not %d", reply.Code, reply.Message, code)
	check(message == "" || reply.Message == message, "message is %q", reply.Message)
}

func done(c *client, method string, params interface{}) {
	var result bool
	must(c.call(method, params, &result))
	check(result, "%s: false", method)
}

func uuidOf(c *client, method string, params interface{}) string {
	var uuid string
	must(c.call(method, params, &uuid))
	check(len(uuid) == 36, "%s: %q is no uuid", method, uuid)
	return uuid
}

func one(c *client, name string) bdev {
	var found []bdev
	must(c.call("bdev_get_bdevs", getBdevs{Name: name, Timeout: 1000}, &found))
	check(len(found) == 1, "%d bdevs called %s", len(found), name)
	return found[0]
}

func rangeChecksums(c *client, name string, clusters uint64) map[uint64]uint64 {
	known := map[uint64]uint64{}
	for start := uint64(0); start < clusters; start += window {
		count := clusters - start
		if count > window {
			count = window
		}
		var page []rangeChecksum
		must(c.call("bdev_lvol_get_snapshot_range_checksums",
			getRangeChecksums{name, start, count}, &page))
		check(uint64(len(page)) == count, "%d checksums instead of %d", len(page), count)
		for i, entry := range page {
			check(entry.ClusterIndex == start+uint64(i), "cluster %d at %d", entry.ClusterIndex, i)
			known[entry.ClusterIndex] = entry.Checksum
		}
	}
	return known
}

// filtered is what the engine asks of every lvol bdev before it looks at any.
func filtered(c *client) map[string]bdev {
	var all []bdev
	must(c.call("bdev_get_bdevs", getBdevs{}, &all))
	found := map[string]bdev{}
	for _, each := range all {
		if each.DriverSpecific.Lvol == nil {
			check(each.DriverSpecific.Aio != nil, "%s is neither", each.Name)
			continue
		}
		check(each.UUID == each.Name && len(each.Aliases) == 1, "names of %+v", each)
		var value string
		err := c.call("bdev_lvol_get_xattr", xattr{Name: each.Name, XattrName: "user_created"}, &value)
		if err != nil {
			refused(err, -32603, "No such file or directory")
		}
		if each.DriverSpecific.Lvol.Snapshot {
			var whole snapshotChecksum
			if err := c.call("bdev_lvol_get_snapshot_checksum", nameOnly{each.Name}, &whole); err != nil {
				refused(err, -19, "No such device")
			}
		}
		found[each.Aliases[0]] = each
	}
	return found
}

func copyClusters(c *client, source, destination string, clusters []uint64, s *summary) {
	for len(clusters) > 0 {
		batch := clusters
		if len(batch) > window {
			batch = clusters[:window]
		}
		clusters = clusters[len(batch):]
		var started operation
		must(c.call("bdev_lvol_start_range_shallow_copy",
			startCopy{source, destination, batch}, &started))
		for {
			var state shallowCopyState
			must(c.call("bdev_lvol_check_shallow_copy", started, &state))
			check(state.State != "error", "copy: %s", state.Error)
			if state.State == "complete" {
				check(state.CopiedClusters+state.UnmappedClusters == state.TotalClusters,
					"complete at %+v", state)
				s.Copied += state.CopiedClusters
				s.Unmapped += state.UnmappedClusters
				break
			}
			check(state.State == "in progress", "state %q", state.State)
			time.Sleep(5 * time.Millisecond)
		}
		refused(c.call("bdev_lvol_check_shallow_copy", started, &shallowCopyState{}), -19, "No such device")
	}
}

// rebuild makes dst/snap of the destination equal to src/snap.
func rebuild(c *client) summary {
	var s summary
	register := func(name string, ended chan error) {
		var result bool
		ended <- c.call("bdev_lvol_register_snapshot_range_checksums", nameOnly{name}, &result)
	}
	ended := make(chan error, 2)
	go register("src/snap", ended)
	go register("dst/snap", ended)
	// Hashing does not hold up others.
	before := filtered(c)
	must(<-ended)
	must(<-ended)
	source := before["src/snap"]
	clusters := source.NumBlocks * uint64(source.BlockSize) / mib

	theirs := rangeChecksums(c, "dst/snap", clusters)
	for index, checksum := range rangeChecksums(c, "src/snap", clusters) {
		if theirs[index] != checksum {
			s.Mismatching = append(s.Mismatching, index)
		}
	}
	sort.Slice(s.Mismatching, func(i, j int) bool { return s.Mismatching[i] < s.Mismatching[j] })

	done(c, "bdev_lvol_detach_parent", nameOnly{"dst/head"})
	uuidOf(c, "bdev_lvol_clone", cloneLvol{"dst/snap", "rebuilding"})
	done(c, "bdev_lvol_delete", nameOnly{"dst/snap"}) // its clusters merge into the clone
	copyClusters(c, "src/snap", "dst/rebuilding", s.Mismatching, &s)
	uuidOf(c, "bdev_lvol_snapshot", snapshotLvol{"dst/rebuilding", "snap", map[string]string{
		"user_created": "true", "snapshot_timestamp": "2026-11-23T00:00:00Z"}})
	var timestamp string
	must(c.call("bdev_lvol_get_xattr", xattr{Name: "dst/snap", XattrName: "snapshot_timestamp"}, &timestamp))
	check(timestamp == "2026-11-23T00:00:00Z", "timestamp %q", timestamp)
	done(c, "bdev_lvol_set_parent", setParent{"dst/head", "dst/snap"})
	done(c, "bdev_lvol_delete", nameOnly{"dst/rebuilding"})

	rebuilt := one(c, "dst/snap").DriverSpecific.Lvol
	check(rebuilt.NumAllocatedClusters == source.DriverSpecific.Lvol.NumAllocatedClusters,
		"%d clusters are allocated instead of %d", rebuilt.NumAllocatedClusters,
		source.DriverSpecific.Lvol.NumAllocatedClusters)
	done(c, "bdev_lvol_register_snapshot_checksum", nameOnly{"dst/snap"})
	var here, there snapshotChecksum
	must(c.call("bdev_lvol_get_snapshot_checksum", nameOnly{"src/snap"}, &here))
	must(c.call("bdev_lvol_get_snapshot_checksum", nameOnly{"dst/snap"}, &there))
	check(here == there, "checksums %d and %d", here.Checksum, there.Checksum)
	s.Checksum = here.Checksum
	return s
}

// lives goes through the calls that a rebuild does not need.
func lives(c *client) {
	var version struct {
		Version string `json:"version"`
		Fields  struct {
			Major uint32 `json:"major"`
		} `json:"fields"`
	}
	must(c.call("spdk_get_version", empty{}, &version))
	check(strings.HasPrefix(version.Version, "SPDK v"), "version %q", version.Version)
	var methods []string
	must(c.call("rpc_get_methods", empty{}, &methods))
	var stores []lvstore
	must(c.call("bdev_lvol_get_lvstores", getLvstores{}, &stores))
	check(len(stores) == 2 && stores[0].ClusterSize == mib, "stores %+v", stores)
	refused(c.call("bdev_lvol_get_lvstores", getLvstores{LvsName: "none"}, &stores), -19, "No such device")
	refused(c.call("bdev_lvol_create_lvstore", createLvstore{"src-aio", "again", mib}, new(string)), -1, "")

	uuid := uuidOf(c, "bdev_lvol_create", createLvol{LvsName: "dst", LvolName: "v", SizeInMib: 4, ThinProvision: true})
	refused(c.call("bdev_lvol_create", createLvol{LvsName: "dst", LvolName: "v", SizeInMib: 4}, new(string)),
		-17, "File exists")
	done(c, "bdev_lvol_set_xattr", xattr{"dst/v", "user_created", "false"})
	done(c, "bdev_lvol_rename", renameLvol{"dst/v", "w"})
	done(c, "bdev_lvol_resize", resizeLvol{uuid, 8})
	check(one(c, "dst/w").NumBlocks == 8*mib/4096, "not resized")
	var bits fragmap
	must(c.call("bdev_lvol_get_fragmap", getFragmap{Name: "dst/w"}, &bits))
	raw, err := base64.StdEncoding.DecodeString(bits.Fragmap)
	must(err)
	check(bits.NumClusters == 8 && bits.NumAllocatedClusters == 0 && len(raw) == 1, "fragmap %+v", bits)
	var lvols []lvol
	must(c.call("bdev_lvol_get_lvols", getLvols{LvsName: "dst"}, &lvols))
	check(len(lvols) == 3, "lvols %+v", lvols)

	var started operation
	must(c.call("bdev_lvol_start_deep_copy", startCopy{SrcLvolName: "src/snap", DstBdevName: "copy-aio"}, &started))
	for state := (deepCopyState{State: "in progress"}); state.State == "in progress"; {
		must(c.call("bdev_lvol_check_deep_copy", started, &state))
		check(state.State != "error", "deep copy: %s", state.Error)
	}
	refused(c.call("bdev_lvol_stop_snapshot_checksum", nameOnly{"src/snap"}, new(bool)), -3, "")
	refused(c.call("bdev_lvol_register_snapshot_checksum", nameOnly{"dst/w"}, new(bool)), -32603, "Operation not permitted")
	refused(c.call("bdev_aio_create", aioCreate{"none", "/does/not/exist", 4096}, new(string)), -2, "No such file or directory")
	refused(c.call("bdev_nvme_get_controllers", empty{}, &[]empty{}), -32601, "Method not found")
	done(c, "bdev_lvol_delete", nameOnly{uuid})
	refused(c.call("bdev_lvol_delete", nameOnly{uuid}, new(bool)), -19, "No such device")
}

// outstanding has many requests under way on one connection.
func outstanding(c *client) int {
	var group sync.WaitGroup
	const many = 1000
	failures := make(chan error, many)
	for i := 0; i < many; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			var lvols []lvol
			if err := c.call("bdev_lvol_get_lvols", getLvols{}, &lvols); err != nil {
				failures <- err
			}
		}()
	}
	group.Wait()
	close(failures)
	for err := range failures {
		panic(err)
	}
	return many
}

func main() {
	c, err := dial(os.Args[1])
	must(err)
	for name, file := range map[string]string{"src-aio": os.Args[2], "dst-aio": os.Args[3], "copy-aio": os.Args[4]} {
		var created string
		must(c.call("bdev_aio_create", aioCreate{name, file, 4096}, &created))
		check(created == name, "created %q", created)
	}
	lives(c)
	s := rebuild(c)
	s.Outstanding = outstanding(c)
	must(json.NewEncoder(os.Stdout).Encode(s))
}
