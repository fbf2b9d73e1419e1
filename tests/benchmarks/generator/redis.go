package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// The Redis protocol, version 2: SET and GET. It is what raftd's `redis` listener speaks, too.

const redisBufferBytes = 64 * 1024

func init() {
	drivers["redis"] = driver{open: openRedis, pipelines: true}
}

type redisClient struct {
	settings connection
	stream   net.Conn
	replies  *bufio.Reader
	outgoing []byte
}

func openRedis(settings connection) (client, error) {
	stream, err := net.DialTimeout("tcp", settings.address, settings.timeout)
	if err != nil {
		return nil, &lost{err}
	}
	return &redisClient{
		settings: settings,
		stream:   stream,
		replies:  bufio.NewReaderSize(stream, redisBufferBytes),
	}, nil
}

func (c *redisClient) close() { c.stream.Close() }

func (c *redisClient) do(requests []request, outcomes []error) {
	c.outgoing = c.outgoing[:0]
	for _, r := range requests {
		if r.read {
			c.outgoing = appendCommand(c.outgoing, "GET", r.key, nil)
		} else {
			c.outgoing = appendCommand(c.outgoing, "SET", r.key, r.value)
		}
	}
	c.stream.SetDeadline(time.Now().Add(c.settings.timeout))
	_, err := c.stream.Write(c.outgoing)
	for i := range requests {
		if err != nil {
			outcomes[i] = &lost{err}
			continue
		}
		outcomes[i] = c.readReply(requests[i].read)
		// What follows on a connection that is out of step means nothing.
		if isLost(outcomes[i]) {
			err = outcomes[i]
		}
	}
}

func appendCommand(to []byte, name, key string, value []byte) []byte {
	if value == nil {
		to = append(to, "*2\r\n"...)
	} else {
		to = append(to, "*3\r\n"...)
	}
	to = appendBulk(to, name)
	to = appendBulk(to, key)
	if value != nil {
		to = appendBulk(to, value)
	}
	return to
}

func appendBulk[Bytes string | []byte](to []byte, content Bytes) []byte {
	to = append(to, '$')
	to = strconv.AppendInt(to, int64(len(content)), 10)
	to = append(to, "\r\n"...)
	to = append(to, content...)
	return append(to, "\r\n"...)
}

func (c *redisClient) readReply(isRead bool) error {
	line, err := c.replies.ReadSlice('\n')
	if err != nil {
		return &lost{err}
	}
	if len(line) < 3 {
		return &lost{&classified{"protocol", fmt.Sprintf("a reply that is none: %q", line)}}
	}
	text := string(line[1 : len(line)-2])
	switch {
	case line[0] == '-':
		word, _, _ := strings.Cut(text, " ")
		return &classified{word, text}
	case line[0] == '+' && !isRead:
		return nil
	case line[0] == '$' && isRead:
		return c.readBulk(text)
	}
	return &lost{&classified{"protocol", fmt.Sprintf("an unexpected reply: %q", line)}}
}

func (c *redisClient) readBulk(length string) error {
	size, err := strconv.Atoi(length)
	if err != nil {
		return &lost{&classified{"protocol", fmt.Sprintf("a length that is none: %q", length)}}
	}
	if size < 0 {
		return &classified{"no-key", "a key was not there"}
	}
	if _, err := io.CopyN(io.Discard, c.replies, int64(size)+2); err != nil {
		return &lost{err}
	}
	return checkLength(size, c.settings.valueBytes)
}

// Return an error if a value that was read is not as long as all that were written.
func checkLength(size, expected int) error {
	if expected > 0 && size != expected {
		return &classified{"wrong-value", fmt.Sprintf("%d bytes instead of %d", size, expected)}
	}
	return nil
}
