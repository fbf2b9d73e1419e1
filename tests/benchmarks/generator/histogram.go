package main

import (
	"math/bits"
	"time"
)

// Counts of latencies, in buckets that are at most 1/128 of their value wide, so that the memory of
// a long run is bounded and its percentiles are right to less than a percent.

const (
	stepBits    = 7
	steps       = 1 << stepBits
	longestBits = 37 // 137 s: longer than any request is waited for
	buckets     = (longestBits - stepBits + 1) * steps
)

type histogram struct {
	counts  [buckets]uint32
	total   int64
	longest time.Duration
}

func (h *histogram) add(taken time.Duration) {
	h.counts[bucketOf(uint64(taken))]++
	h.total++
	if taken > h.longest {
		h.longest = taken
	}
}

func (h *histogram) merge(other *histogram) {
	for i, count := range other.counts {
		h.counts[i] += count
	}
	h.total += other.total
	if other.longest > h.longest {
		h.longest = other.longest
	}
}

// Return the latency that a share of all requests did not exceed, in microseconds; -1 of none.
func (h *histogram) quantile(share float64) float64 {
	if h.total == 0 {
		return -1
	}
	wanted := int64(share*float64(h.total) + 0.5)
	if wanted < 1 {
		wanted = 1
	}
	if wanted >= h.total {
		return microseconds(h.longest)
	}
	var seen int64
	for i, count := range h.counts {
		seen += int64(count)
		if seen >= wanted {
			return microseconds(middleOf(i))
		}
	}
	return microseconds(h.longest)
}

// Values below 128 ns have buckets of their own; above, each power of two has 128.
func bucketOf(ns uint64) int {
	if ns < steps {
		return int(ns)
	}
	shift := bits.Len64(ns) - stepBits - 1
	bucket := (shift+1)*steps + int(ns>>uint(shift)) - steps
	if bucket >= buckets {
		return buckets - 1
	}
	return bucket
}

func middleOf(bucket int) time.Duration {
	if bucket < steps {
		return time.Duration(bucket)
	}
	shift := uint(bucket/steps - 1)
	low := uint64(bucket%steps+steps) << shift
	return time.Duration(low + (uint64(1)<<shift)/2)
}

func microseconds(taken time.Duration) float64 {
	return rounded(float64(taken)/1e3, 1)
}
