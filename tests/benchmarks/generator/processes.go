package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// What Linux says about processes. Its clock ticks are hundredths of a second on every platform
// that it shows them to programs.

const (
	ticksPerSecond = 100
	clockMonotonic = 1
)

// What a server has used; percentages are of one core.
type serverUse struct {
	Pid        int     `json:"pid"`
	CPUPercent float64 `json:"cpu_percent"`
	RSSMiB     float64 `json:"rss_mib"`
	RSSAnonMiB float64 `json:"rss_anon_mib"`
}

func parsePids(text string) ([]int, error) {
	pids := []int{}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("-pids: %q is no process id", word)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Return the processor time of each process and of all that it has started, in seconds. Time moves
// from a child to its parent when that waits for it, so the sum of both only grows.
func cpuSeconds(pids []int) []float64 {
	used := make([]float64, len(pids))
	for i, pid := range pids {
		used[i] = treeCPUSeconds(pid)
	}
	return used
}

func treeCPUSeconds(pid int) float64 {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	text := string(content)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+2:])
	total := 0.0
	// utime, stime, cutime, cstime
	for _, field := range fields[11:15] {
		ticks, _ := strconv.ParseFloat(field, 64)
		total += ticks / ticksPerSecond
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, word := range strings.Fields(string(children)) {
		child, _ := strconv.Atoi(word)
		total += treeCPUSeconds(child)
	}
	return total
}

func memory(pid int) (rssMiB, anonMiB float64) {
	content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, line := range strings.Split(string(content), "\n") {
		name, rest, _ := strings.Cut(line, ":")
		words := strings.Fields(rest)
		if len(words) == 0 {
			continue
		}
		kib, _ := strconv.ParseFloat(words[0], 64)
		switch name {
		case "VmRSS":
			rssMiB = kib / 1024
		case "RssAnon":
			anonMiB = kib / 1024
		}
	}
	return rssMiB, anonMiB
}

func ownCPUSeconds() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// Return a moment as nanoseconds of CLOCK_MONOTONIC.
func monotonicNs(moment time.Time) int64 {
	var now syscall.Timespec
	reference := time.Now()
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano() + int64(moment.Sub(reference))
}

func rounded(value float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(value*scale) / scale
}
