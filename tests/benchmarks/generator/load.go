package main

import (
	"flag"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A load that ends with its standard input ends after so long in any case.
	longestLoad = 20 * time.Minute
	// After an error, so that a server that refuses everything is not asked a million times.
	pauseAfterError = 10 * time.Millisecond
	// Values are stretches of one random text, so that they differ and cost nothing to make.
	valueSourceBytes = 1 << 20
)

// What the clients of a load or a fill share.
type workload struct {
	driver     driver
	driverName string
	addresses  []string
	clients    int
	// The clients share so many, where the driver is concurrent; 0: each has its own.
	connections int
	keys        int
	keyNames    []string
	valueBytes  int
	values      []byte
	timeout     time.Duration
}

func workloadFlags(flags *flag.FlagSet) func() (*workload, error) {
	driverName := flags.String("driver", "redis", "how to talk to the servers")
	addresses := flags.String("addresses", "127.0.0.1:6379", "HOST:PORT, more of them with commas")
	clients := flags.Int("clients", 1, "clients, each with a connection of its own")
	connections := flags.Int("connections", 0, "etcd: clients share so many; 0: none is shared")
	keys := flags.Int("keys", 10_000, "number of keys")
	keyPrefix := flags.String("key-prefix", "key-", "what the names of keys begin with")
	valueBytes := flags.Int("value-bytes", 256, "length of each value")
	timeout := flags.Duration("timeout", 10*time.Second, "for one request")
	return func() (*workload, error) {
		found, err := driverNamed(*driverName)
		if err != nil {
			return nil, err
		}
		if *clients < 1 || *keys < 1 || *valueBytes < 1 {
			return nil, fmt.Errorf("-clients, -keys and -value-bytes are at least 1")
		}
		if *connections != 0 && !found.concurrent {
			return nil, fmt.Errorf("-connections: clients of %s cannot share them", *driverName)
		}
		work := &workload{
			driver:      found,
			driverName:  *driverName,
			addresses:   strings.Split(*addresses, ","),
			clients:     *clients,
			connections: *connections,
			keys:        *keys,
			valueBytes:  *valueBytes,
			timeout:     *timeout,
			values:      make([]byte, valueSourceBytes+*valueBytes),
		}
		rand.New(rand.NewSource(1)).Read(work.values)
		work.keyNames = make([]string, *keys)
		for number := range work.keyNames {
			work.keyNames[number] = fmt.Sprintf("%s%09d", *keyPrefix, number)
		}
		return work, nil
	}
}

func (w *workload) open(number int) (client, error) {
	return w.driver.open(connection{
		address:    w.addresses[number%len(w.addresses)],
		timeout:    w.timeout,
		valueBytes: w.valueBytes,
	})
}

func (w *workload) openAll() ([]client, error) {
	opened := make([]client, w.clients)
	for number := range opened {
		if w.connections > 0 && number >= w.connections {
			opened[number] = opened[number%w.connections]
			continue
		}
		made, err := w.open(number)
		if err != nil {
			return nil, err
		}
		opened[number] = made
	}
	return opened, nil
}

func (w *workload) value(random *rand.Rand) []byte {
	start := random.Intn(valueSourceBytes)
	return w.values[start : start+w.valueBytes]
}

// A load: closed loops, each of which sends when it has been answered.
type load struct {
	*workload
	readShare float64
	pipeline  int
	warmUp    time.Duration
	duration  time.Duration
	pids      []int
	interval  time.Duration

	began  time.Time
	start  time.Time
	end    time.Time
	series []int64
	stop   <-chan struct{}
}

type latencies struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

type loadReport struct {
	Driver              string            `json:"driver"`
	Operation           string            `json:"operation"`
	ReadShare           float64           `json:"read_share"`
	Clients             int               `json:"clients"`
	Pipeline            int               `json:"pipeline"`
	ValueBytes          int               `json:"value_bytes"`
	Keys                int               `json:"keys"`
	Seconds             float64           `json:"seconds"`
	Operations          int64             `json:"operations"`
	PerSecond           float64           `json:"per_second"`
	LatencyUs           latencies         `json:"latency_us"`
	Errors              map[string]int64  `json:"errors"`
	ErrorTexts          map[string]string `json:"error_texts"`
	Servers             []serverUse       `json:"servers"`
	GeneratorCPUPercent float64           `json:"generator_cpu_percent"`
	StartNs             int64             `json:"start_ns"`
	SeriesStartNs       int64             `json:"series_start_ns,omitempty"`
	SeriesIntervalMs    float64           `json:"series_interval_ms,omitempty"`
	Series              []int64           `json:"series,omitempty"`
}

func runLoad(arguments []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	work := workloadFlags(flags)
	operation := flags.String("operation", "put", "put, get or mixed")
	readShare := flags.Float64("read-share", 0.5, "of a mixed load: share of gets, 0 to 1")
	pipeline := flags.Int("pipeline", 1, "requests under way for each client")
	warmUp := flags.Duration("warm-up", 500*time.Millisecond, "load that does not count")
	duration := flags.Duration("duration", 3*time.Second, "0: until standard input is closed")
	pids := flags.String("pids", "", "processes of the servers, with commas")
	interval := flags.Duration("series", 0, "also count the answers of each such interval")
	flags.Parse(arguments)
	shared, err := work()
	if err != nil {
		return err
	}
	l := &load{
		workload: shared, pipeline: *pipeline, warmUp: *warmUp, duration: *duration,
		interval: *interval,
	}
	switch *operation {
	case "put":
	case "get":
		l.readShare = 1
	case "mixed":
		l.readShare = *readShare
	default:
		return fmt.Errorf("-operation: %q is none of put, get, mixed", *operation)
	}
	if l.pipeline < 1 || (l.pipeline > 1 && !l.driver.pipelines) {
		return fmt.Errorf("-pipeline: at least 1, and no more with the driver %s", l.driverName)
	}
	if l.pids, err = parsePids(*pids); err != nil {
		return err
	}
	report, err := l.run()
	if err != nil {
		return err
	}
	report.Operation = *operation
	return emit(report)
}

func (l *load) run() (*loadReport, error) {
	clients, err := l.openAll()
	if err != nil {
		return nil, err
	}
	l.began = time.Now()
	l.start = l.began.Add(l.warmUp)
	l.end = l.start.Add(l.duration)
	// Only a load whose end is open looks at its standard input: that may be anything otherwise.
	if l.duration == 0 {
		l.end = l.start.Add(longestLoad)
		l.stop = standardInputClosed()
	}
	if l.interval > 0 {
		l.series = make([]int64, l.end.Sub(l.began)/l.interval+1)
	}
	loops := make([]*loop, len(clients))
	var running sync.WaitGroup
	for number, opened := range clients {
		loops[number] = &loop{load: l, number: number, client: opened, errors: newErrorCounts()}
		running.Add(1)
		go func(one *loop) {
			defer running.Done()
			one.run()
		}(loops[number])
	}
	report := l.measure()
	running.Wait()
	// Not before: some may share a connection.
	for _, one := range loops {
		one.client.close()
	}
	l.sumUp(report, loops)
	return report, nil
}

// Wait for the end of the warm-up and of the load; return what the processes have used between.
func (l *load) measure() *loadReport {
	time.Sleep(time.Until(l.start))
	before, ownBefore, started := cpuSeconds(l.pids), ownCPUSeconds(), time.Now()
	select {
	case <-time.After(time.Until(l.end)):
	case <-l.stop:
	}
	seconds := time.Since(started).Seconds()
	after, own := cpuSeconds(l.pids), ownCPUSeconds()-ownBefore
	report := &loadReport{
		Seconds:             seconds,
		GeneratorCPUPercent: rounded(100*own/seconds, 1),
		Servers:             []serverUse{},
		StartNs:             monotonicNs(l.start),
	}
	for i, pid := range l.pids {
		rss, anonymous := memory(pid)
		report.Servers = append(report.Servers, serverUse{
			Pid:        pid,
			CPUPercent: rounded(100*(after[i]-before[i])/seconds, 1),
			RSSMiB:     rounded(rss, 1),
			RSSAnonMiB: rounded(anonymous, 1),
		})
	}
	return report
}

func (l *load) sumUp(report *loadReport, loops []*loop) {
	all, failed := &histogram{}, newErrorCounts()
	for _, one := range loops {
		all.merge(&one.taken)
		failed.merge(one.errors)
	}
	report.Driver, report.ReadShare, report.Clients = l.driverName, l.readShare, l.clients
	report.Pipeline, report.ValueBytes, report.Keys = l.pipeline, l.valueBytes, l.keys
	report.Operations = all.total
	report.PerSecond = rounded(float64(all.total)/report.Seconds, 1)
	report.LatencyUs = latencies{
		P50: all.quantile(0.5), P90: all.quantile(0.9), P99: all.quantile(0.99),
		P999: all.quantile(0.999), Max: all.quantile(1),
	}
	report.Errors, report.ErrorTexts = failed.count, failed.last
	if l.interval > 0 {
		whole := int(time.Since(l.began) / l.interval)
		if whole > len(l.series) {
			whole = len(l.series)
		}
		report.Series = l.series[:whole]
		report.SeriesStartNs = monotonicNs(l.began)
		report.SeriesIntervalMs = float64(l.interval) / 1e6
	}
}

// One client and what it has seen.
type loop struct {
	*load
	number int
	client client
	taken  histogram
	errors errorCounts
}

func (o *loop) run() {
	random := rand.New(rand.NewSource(int64(o.number) + 2))
	requests, outcomes := make([]request, o.pipeline), make([]error, o.pipeline)
	for !o.isOver(time.Now()) {
		for i := range requests {
			requests[i].key = o.keyNames[random.Intn(o.keys)]
			requests[i].read = o.readShare == 1 || random.Float64() < o.readShare
			if !requests[i].read {
				requests[i].value = o.value(random)
			}
		}
		sent := time.Now()
		o.client.do(requests, outcomes)
		o.note(sent, time.Now(), outcomes)
	}
}

func (o *loop) isOver(now time.Time) bool {
	select {
	case <-o.stop:
		return true
	default:
		return now.After(o.end)
	}
}

func (o *loop) note(sent, answered time.Time, outcomes []error) {
	counts := !answered.Before(o.start) && !o.isOver(answered)
	var failed error
	for _, err := range outcomes {
		if err != nil {
			o.errors.add(err)
			failed = err
			continue
		}
		if counts {
			o.taken.add(answered.Sub(sent))
		}
		if o.interval > 0 {
			bucket := int(answered.Sub(o.began) / o.interval)
			if bucket < len(o.series) {
				atomic.AddInt64(&o.series[bucket], 1)
			}
		}
	}
	if failed != nil {
		o.recover(failed)
	}
}

// Pause after an error; connect anew, until the load is over, where the connection is lost.
func (o *loop) recover(failed error) {
	time.Sleep(pauseAfterError)
	if !isLost(failed) {
		return
	}
	o.client.close()
	for !o.isOver(time.Now()) {
		opened, err := o.open(o.number)
		if err == nil {
			o.client = opened
			return
		}
		o.errors.add(err)
		time.Sleep(pauseAfterError)
	}
}
