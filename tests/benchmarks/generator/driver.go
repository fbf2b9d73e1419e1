package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// What a client asks for.
type request struct {
	read  bool
	key   string
	value []byte
}

// A connection to one server. Used by one goroutine at a time unless its driver is concurrent.
type client interface {
	// Carry the requests out and wait until all are answered; outcomes[i] tells how requests[i]
	// ended. Drivers that cannot pipeline are given one request at a time.
	do(requests []request, outcomes []error)
	close()
}

type driver struct {
	open func(settings connection) (client, error)
	// Whether several requests of one client may be under way on its connection.
	pipelines bool
	// Whether a client may be used by many goroutines at once.
	concurrent bool
}

// How to reach a server, and what to expect of it.
type connection struct {
	address string
	timeout time.Duration
	// Length of each value that is read; another one is an error. 0: any.
	valueBytes int
}

var drivers = map[string]driver{}

func driverNamed(name string) (driver, error) {
	found, known := drivers[name]
	if !known {
		return found, fmt.Errorf("no driver %q was compiled in; there are %v", name, names(drivers))
	}
	return found, nil
}

// An error that says of which class it is.
type classified struct {
	class string
	text  string
}

func (e *classified) Error() string { return e.text }

// The connection is of no use any more.
type lost struct{ cause error }

func (e *lost) Error() string { return e.cause.Error() }
func (e *lost) Unwrap() error { return e.cause }

// Return the class of an error, under which it is counted.
func class(err error) string {
	var named *classified
	var network net.Error
	switch {
	case errors.As(err, &named):
		return named.class
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.As(err, &network) && network.Timeout():
		return "timeout"
	case errors.Is(err, io.EOF), errors.As(err, &network):
		return "connection"
	}
	return "other"
}

func isLost(err error) bool {
	var gone *lost
	return errors.As(err, &gone)
}

// How often each class of error was met, and the last text of each.
type errorCounts struct {
	count map[string]int64
	last  map[string]string
}

func newErrorCounts() errorCounts {
	return errorCounts{count: map[string]int64{}, last: map[string]string{}}
}

func (c errorCounts) add(err error) {
	name := class(err)
	c.count[name]++
	c.last[name] = err.Error()
}

func (c errorCounts) merge(other errorCounts) {
	for name, count := range other.count {
		c.count[name] += count
		c.last[name] = other.last[name]
	}
}
