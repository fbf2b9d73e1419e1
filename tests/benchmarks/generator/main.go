// A load generator for key-value stores: closed loops of clients, and probes for fail-over.
//
//	generator load   one JSON object: throughput, latency percentiles, errors, CPU and memory
//	generator fill   every key is written once
//	generator probe  a put at each address every few milliseconds, a line for each that succeeds
//	generator replace-member  one member of an etcd cluster makes room for another
//
// `generator MODE -help` lists the flags. The driver for the Redis protocol needs only Go's own
// library; the others are compiled in with the build tags etcd and zookeeper, where their client
// libraries are installed. Times in the output are nanoseconds of CLOCK_MONOTONIC, which all
// processes of a machine share.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sort"
)

// Collections of garbage would be seen as latency of the servers, and there is memory enough.
const garbagePercent = 400

const (
	exitFailed = 1
	exitUsage  = 2
)

// What the first argument may be. Drivers add modes that only they can do.
var modes = map[string]func(arguments []string) error{
	"load":  runLoad,
	"fill":  runFill,
	"probe": runProbe,
}

func main() {
	debug.SetGCPercent(garbagePercent)
	if len(os.Args) < 2 || modes[os.Args[1]] == nil {
		fmt.Fprintf(os.Stderr, "usage: generator MODE [flags]; the modes are %v\n", names(modes))
		os.Exit(exitUsage)
	}
	if err := modes[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "generator: %v\n", err)
		os.Exit(exitFailed)
	}
}

func names[Value any](table map[string]Value) []string {
	found := make([]string, 0, len(table))
	for name := range table {
		found = append(found, name)
	}
	sort.Strings(found)
	return found
}

// Something that whoever reads our standard output waits for.
type event struct {
	Event string `json:"event"`
}

// Write one line of JSON to standard output, at once.
func emit(line any) error {
	encoded, err := json.Marshal(line)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(encoded, '\n'))
	return err
}

// Return a channel that is closed when nobody holds our standard input open any more.
func standardInputClosed() <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	return closed
}
