package main

import (
	"flag"
	"math/rand"
	"sync"
	"sync/atomic"
	"time"
)

type fillReport struct {
	Keys       int               `json:"keys"`
	ValueBytes int               `json:"value_bytes"`
	Seconds    float64           `json:"seconds"`
	Errors     map[string]int64  `json:"errors"`
	ErrorTexts map[string]string `json:"error_texts"`
}

// A write that fails is repeated so often; afterwards its key is missing, and the errors say so.
const fillAttempts = 5

func runFill(arguments []string) error {
	flags := flag.NewFlagSet("fill", flag.ExitOnError)
	work := workloadFlags(flags)
	flags.Parse(arguments)
	w, err := work()
	if err != nil {
		return err
	}
	clients, err := w.openAll()
	if err != nil {
		return err
	}
	started := time.Now()
	var next int64
	var running sync.WaitGroup
	counts := make([]errorCounts, len(clients))
	for number, opened := range clients {
		counts[number] = newErrorCounts()
		running.Add(1)
		go func(number int, opened client) {
			defer running.Done()
			random := rand.New(rand.NewSource(int64(number) + 2))
			for {
				key := int(atomic.AddInt64(&next, 1)) - 1
				if key >= w.keys {
					break
				}
				opened = w.fillOne(number, opened, key, random, counts[number])
			}
			clients[number] = opened
		}(number, opened)
	}
	running.Wait()
	// Not before: some may share a connection.
	for _, opened := range clients {
		opened.close()
	}
	all := newErrorCounts()
	for _, some := range counts {
		all.merge(some)
	}
	return emit(fillReport{
		Keys: w.keys, ValueBytes: w.valueBytes, Seconds: time.Since(started).Seconds(),
		Errors: all.count, ErrorTexts: all.last,
	})
}

// Write a key; return the connection to go on with.
func (w *workload) fillOne(
	number int, opened client, key int, random *rand.Rand, counts errorCounts,
) client {
	requests := []request{{key: w.keyNames[key], value: w.value(random)}}
	outcomes := make([]error, 1)
	for attempt := 0; attempt < fillAttempts; attempt++ {
		opened.do(requests, outcomes)
		if outcomes[0] == nil {
			break
		}
		counts.add(outcomes[0])
		time.Sleep(pauseAfterError)
		if isLost(outcomes[0]) {
			if again, err := w.open(number); err == nil {
				opened.close()
				opened = again
			}
		}
	}
	return opened
}
