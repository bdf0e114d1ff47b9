// SPDX-License-Identifier: Apache-2.0
//
// The time, read for less than it costs to ask the clock.
#pragma once

#include "fabric.h"

#define CLOCK_BITS 36 // of milliseconds: 2 years

// clock is one word, so that no CPU sees half of it: the last bits of the
// kernel's tick count, and the time at that tick.
volatile __u64 clock;

// now_ms is the coarse monotonic clock in milliseconds. It changes with the
// kernel's ticks, whose number is a load from memory: the clock itself is read
// once in a tick.
static __always_inline __u64 now_ms(void)
{
	__u64 tick = bpf_jiffies64() << CLOCK_BITS, word = clock;

	if ((word ^ tick) >> CLOCK_BITS) {
		word = tick | (bpf_ktime_get_coarse_ns() / 1000000 & ((1ULL << CLOCK_BITS) - 1));
		clock = word;
	}
	return word & ((1ULL << CLOCK_BITS) - 1);
}
