/* Every atomic access of the project, so that its order is always spelled out.
 *
 *   release store / RMW: everything this thread wrote before is visible to whoever reads the stored value with acquire.
 *   acquire load / RMW:  pairs with the release it reads from; nothing that follows moves before it.
 *   seq_cst:             besides, all seq_cst accesses have one order that every thread agrees on. Needed only where a
 *                        thread stores one word and then loads another (the park/wake step): release and acquire
 *                        alone let the load overtake the store.
 *
 * No stand-alone fences: gcc's ThreadSanitizer does not see them. With SIDECAML_INTERLEAVE every access goes through
 * the scheduler of the interleaving tests instead.
 */
#ifndef SIDECAML_ATOMICS_H
#define SIDECAML_ATOMICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef SIDECAML_INTERLEAVE

uint32_t interleave_load32(const _Atomic uint32_t *p, memory_order order);
uint64_t interleave_load64(const _Atomic uint64_t *p, memory_order order);
void interleave_store32(_Atomic uint32_t *p, uint32_t value, memory_order order);
void interleave_store64(_Atomic uint64_t *p, uint64_t value, memory_order order);
uint32_t interleave_exchange32(_Atomic uint32_t *p, uint32_t value, memory_order order);
bool interleave_cas64(_Atomic uint64_t *p, uint64_t *expected, uint64_t desired, memory_order order);

#define load32(p, order) interleave_load32((p), memory_order_##order)
#define load64(p, order) interleave_load64((p), memory_order_##order)
#define store32(p, value, order) interleave_store32((p), (value), memory_order_##order)
#define store64(p, value, order) interleave_store64((p), (value), memory_order_##order)
#define exchange32(p, value, order) interleave_exchange32((p), (value), memory_order_##order)
#define cas64(p, expected, desired, order) interleave_cas64((p), (expected), (desired), memory_order_##order)

#else

#define load32(p, order) atomic_load_explicit((p), memory_order_##order)
#define load64(p, order) atomic_load_explicit((p), memory_order_##order)
#define store32(p, value, order) atomic_store_explicit((p), (value), memory_order_##order)
#define store64(p, value, order) atomic_store_explicit((p), (value), memory_order_##order)
#define exchange32(p, value, order) atomic_exchange_explicit((p), (value), memory_order_##order)
/* Strong; on failure *expected is what was there, read with acquire. */
#define cas64(p, expected, desired, order)                                                                             \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_##order, memory_order_acquire)

#endif

/* For counters with a single writer, which others may read at any time. */
static inline void count_more64(_Atomic uint64_t *counter, uint64_t more) {
    store64(counter, load64(counter, relaxed) + more, relaxed);
}

static inline void count64(_Atomic uint64_t *counter) {
    count_more64(counter, 1);
}

/* Tells the core that this is a spin loop. */
static inline void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
