from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "sync.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct gate_t:
        pass
    ctypedef unsigned long pthread_t

    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attr) noexcept
    int pthread_mutex_destroy(pthread_mutex_t *mutex) noexcept
    int pthread_mutex_lock(pthread_mutex_t *mutex) noexcept
    int pthread_mutex_unlock(pthread_mutex_t *mutex) noexcept
    int pthread_cond_init(pthread_cond_t *cond, const void *attr) noexcept
    int pthread_cond_destroy(pthread_cond_t *cond) noexcept
    int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex) noexcept
    int pthread_cond_signal(pthread_cond_t *cond) noexcept
    int pthread_cond_broadcast(pthread_cond_t *cond) noexcept
    double seconds_now() noexcept
    void cond_init_timed(pthread_cond_t *cond) noexcept
    int cond_wait_for(pthread_cond_t *cond, pthread_mutex_t *mutex, double seconds) noexcept

    uint32_t load32(const uint32_t *p) noexcept
    void store32(uint32_t *p, uint32_t v) noexcept
    uint64_t load64(const uint64_t *p) noexcept
    void store64(uint64_t *p, uint64_t v) noexcept
    uint64_t add64(uint64_t *p, uint64_t v) noexcept
    uint32_t add32(uint32_t *p, uint32_t v) noexcept
    uint32_t sub32(uint32_t *p, uint32_t v) noexcept
    uint32_t swap32(uint32_t *p, uint32_t v) noexcept
    int cas32(uint32_t *p, uint32_t expected, uint32_t v) noexcept
    uint8_t load8(const uint8_t *p) noexcept
    uint8_t swap8(uint8_t *p, uint8_t v) noexcept
    void store8(uint8_t *p, uint8_t v) noexcept

    void gate_init(gate_t *gate) noexcept
    void gate_destroy(gate_t *gate) noexcept
    uint32_t gate_enter(gate_t *gate) noexcept
    void gate_exit(gate_t *gate, uint32_t shard) noexcept
    void gate_close(gate_t *gate) noexcept
    void gate_open(gate_t *gate) noexcept
    int gate_is_mine(gate_t *gate) noexcept

    int pthread_create(
        pthread_t *thread, const void *attr, void *(*run)(void *) noexcept nogil, void *argument
    ) noexcept
    int pthread_join(pthread_t thread, void **result) noexcept
    void *load_pointer(void **where) noexcept
    void store_pointer(void **where, void *value) noexcept
    int cas_pointer(void **where, void *expected, void *value) noexcept
