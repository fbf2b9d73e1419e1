package main

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Probing: at every address a put is started every few milliseconds, whatever became of those
// before, and each that succeeds is told at once. Nothing follows a redirection: the address whose
// server leads answers, or, where servers forward, any.

const (
	// More are not started at an address while so many wait there.
	probesUnderWay = 1_000
	// The puts go to so many keys: one key alone would queue up in stores that lock keys.
	probeKeys       = 16
	probeValueBytes = 16
	// After so many rounds every connection has been tried, and whoever waits for it is told.
	warmRounds = 20
)

type probeSuccess struct {
	Address int   `json:"address"`
	StartNs int64 `json:"start_ns"`
	EndNs   int64 `json:"end_ns"`
}

type probeSummary struct {
	Summary bool             `json:"summary"`
	Started int64            `json:"started"`
	Skipped int64            `json:"skipped"`
	Errors  map[string]int64 `json:"errors"`
}

type prober struct {
	driver   driver
	settings connection
	number   int
	results  *probeResults
	// Of a concurrent driver: the one connection for all puts. Else nil, and free has those that
	// no put uses at the moment.
	shared client
	free   chan client
	slots  chan struct{}
}

// Shared by all probers.
type probeResults struct {
	lock    sync.Mutex
	summary probeSummary
	errors  errorCounts
}

func runProbe(arguments []string) error {
	flags := flag.NewFlagSet("probe", flag.ExitOnError)
	driverName := flags.String("driver", "redis", "how to talk to the servers")
	addresses := flags.String("addresses", "", "HOST:PORT of each server, with commas")
	interval := flags.Duration("interval", 5*time.Millisecond, "between two puts at an address")
	duration := flags.Duration("duration", 10*time.Second, "it ends earlier with standard input")
	timeout := flags.Duration("timeout", 2*time.Second, "for one put")
	flags.Parse(arguments)
	found, err := driverNamed(*driverName)
	if err != nil {
		return err
	}
	if *addresses == "" || *interval <= 0 {
		return fmt.Errorf("-addresses is needed, and an -interval above 0")
	}
	results := &probeResults{errors: newErrorCounts()}
	probers := []*prober{}
	for number, address := range strings.Split(*addresses, ",") {
		one := &prober{
			driver:   found,
			settings: connection{address: address, timeout: *timeout},
			number:   number,
			results:  results,
			free:     make(chan client, probesUnderWay),
			slots:    make(chan struct{}, probesUnderWay),
		}
		if found.concurrent {
			if one.shared, err = found.open(one.settings); err != nil {
				return err
			}
		}
		probers = append(probers, one)
	}
	stop := standardInputClosed()
	end := time.After(*duration)
	ticks := time.NewTicker(*interval)
	defer ticks.Stop()
	for round := 0; ; round++ {
		select {
		case <-stop:
			return results.finish()
		case <-end:
			return results.finish()
		case <-ticks.C:
		}
		for _, one := range probers {
			one.start(round)
		}
		if round == warmRounds {
			results.tell(event{"started"})
		}
	}
}

func (p *prober) start(round int) {
	select {
	case p.slots <- struct{}{}:
	default:
		p.results.skip()
		return
	}
	go func() {
		defer func() { <-p.slots }()
		p.put(round)
	}()
}

func (p *prober) put(round int) {
	started := time.Now()
	used, err := p.take()
	if err != nil {
		p.results.fail(err)
		return
	}
	requests := []request{{
		key: fmt.Sprintf("probe-%02d", round%probeKeys), value: make([]byte, probeValueBytes),
	}}
	outcomes := make([]error, 1)
	used.do(requests, outcomes)
	p.results.note(p.number, started, time.Now(), outcomes[0])
	switch {
	case used == p.shared:
	case outcomes[0] != nil && isLost(outcomes[0]):
		used.close()
	default:
		p.free <- used
	}
}

// Return the shared connection, else one that nobody uses, else a new one.
func (p *prober) take() (client, error) {
	if p.shared != nil {
		return p.shared, nil
	}
	select {
	case used := <-p.free:
		return used, nil
	default:
		return p.driver.open(p.settings)
	}
}

func (r *probeResults) tell(line any) {
	r.lock.Lock()
	defer r.lock.Unlock()
	emit(line)
}

func (r *probeResults) skip() {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.summary.Skipped++
}

func (r *probeResults) fail(err error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.summary.Started++
	r.errors.add(err)
}

func (r *probeResults) note(address int, started, ended time.Time, err error) {
	if err != nil {
		r.fail(err)
		return
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	r.summary.Started++
	emit(probeSuccess{address, monotonicNs(started), monotonicNs(ended)})
}

func (r *probeResults) finish() error {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.summary.Summary, r.summary.Errors = true, r.errors.count
	return emit(r.summary)
}
