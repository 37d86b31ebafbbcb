"""Progress counters, cancellation and rate limit of background loops."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from lvolfs._native.sync cimport (
    add32, gate_t, load32, load64, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_unlock, seconds_now, store32, store64, sub32,
)

cdef extern from "<errno.h>" nogil:
    int ECANCELED

cdef extern from "control.h" nogil:
    void sleep_seconds(double seconds) noexcept
    uint32_t gate_inside(const gate_t *gate) noexcept
    void lower_thread_priority() noexcept

# A cancel is noticed within this time, however low the rate.
cdef double LONGEST_SLEEP = 0.02
# Unused allowance is kept for this long; more would let a stalled job burst.
cdef double BURST_SECONDS = 0.1
# Foreground requests are let through for this long at most between two slices.
cdef double LONGEST_YIELD = 0.002

cdef uint32_t background_inside = 0


cdef void background_enter() noexcept nogil:
    add32(&background_inside, 1)


cdef void background_leave() noexcept nogil:
    sub32(&background_inside, 1)


def enter_background():
    lower_thread_priority()


cdef int control_pace(control_t *control, uint64_t length) noexcept nogil:
    cdef uint64_t rate
    cdef double now, due
    if load32(&control.cancelled):
        return -ECANCELED
    rate = load64(&control.rate)
    if rate == 0:
        return 0
    pthread_mutex_lock(&control.mutex)
    now = seconds_now()
    if control.paid_until < now - BURST_SECONDS:
        control.paid_until = now - BURST_SECONDS
    control.paid_until += <double> length / <double> rate
    due = control.paid_until
    pthread_mutex_unlock(&control.mutex)
    while due > now:
        if load32(&control.cancelled):
            return -ECANCELED
        sleep_seconds(min(due - now, LONGEST_SLEEP))
        if load64(&control.rate) != rate:
            # Changed under way: what was owed at the old rate is forgiven.
            pthread_mutex_lock(&control.mutex)
            control.paid_until = seconds_now()
            pthread_mutex_unlock(&control.mutex)
            break
        now = seconds_now()
    return 0


cdef void control_yield(control_t *control, const gate_t *gate, double slice_seconds) noexcept nogil:
    cdef uint32_t inside
    if gate == NULL:
        return
    inside = gate_inside(gate)
    if inside > load32(&background_inside):
        sleep_seconds(min(slice_seconds, LONGEST_YIELD))


cdef class Control:
    def __cinit__(self, *, rate=0):
        memset(&self.raw, 0, sizeof(control_t))
        pthread_mutex_init(&self.raw.mutex, NULL)
        self.rate = rate

    def __dealloc__(self):
        pthread_mutex_destroy(&self.raw.mutex)

    def cancel(self):
        store32(&self.raw.cancelled, 1)

    @property
    def cancelled(self):
        return load32(&self.raw.cancelled) != 0

    @property
    def rate(self):
        return load64(&self.raw.rate)

    @rate.setter
    def rate(self, value):
        if value < 0:
            raise ValueError(f"a rate is bytes per second, 0 for no limit: {value}")
        store64(&self.raw.rate, value)

    @property
    def copied(self):
        return load64(&self.raw.copied)

    @property
    def unmapped(self):
        return load64(&self.raw.unmapped)

    @property
    def hashed(self):
        return load64(&self.raw.hashed)

    @property
    def bytes_read(self):
        return load64(&self.raw.bytes_read)

    @property
    def bytes_written(self):
        return load64(&self.raw.bytes_written)
