//go:build zookeeper

package main

import (
	"errors"

	"github.com/samuel/go-zookeeper/zk"
)

// ZooKeeper. A put is setData of a node that is there, or else create.
//
// A read is `sync`, then getData, one after the other: two round trips. getData alone answers from
// the server's own copy, which may be old; after a sync it is as new as the leader's was. That is
// the strongest read that ZooKeeper offers. It is still weaker than a linearizable one: its leader
// does not ask a quorum whether it still leads before it answers the sync.

func init() {
	drivers["zookeeper"] = driver{open: openZooKeeper}
}

type zooKeeperClient struct {
	settings connection
	session  *zk.Conn
}

type silence struct{}

func (silence) Printf(string, ...interface{}) {}

func openZooKeeper(settings connection) (client, error) {
	session, events, err := zk.Connect(
		[]string{settings.address}, settings.timeout, zk.WithLogger(silence{}))
	if err != nil {
		return nil, err
	}
	for event := range events {
		if event.State == zk.StateHasSession {
			break
		}
	}
	// The session stops when nobody takes its events.
	go func() {
		for range events {
		}
	}()
	return &zooKeeperClient{settings, session}, nil
}

func (c *zooKeeperClient) close() { c.session.Close() }

func (c *zooKeeperClient) do(requests []request, outcomes []error) {
	for i, r := range requests {
		outcomes[i] = zooKeeperClass(c.one(r))
	}
}

func (c *zooKeeperClient) one(r request) error {
	path := "/" + r.key
	if r.read {
		if _, err := c.session.Sync(path); err != nil {
			return err
		}
		value, _, err := c.session.Get(path)
		if err != nil {
			return err
		}
		return checkLength(len(value), c.settings.valueBytes)
	}
	_, err := c.session.Set(path, r.value, -1)
	if err == zk.ErrNoNode {
		_, err = c.session.Create(path, r.value, 0, zk.WorldACL(zk.PermAll))
	}
	if err == zk.ErrNodeExists {
		_, err = c.session.Set(path, r.value, -1)
	}
	return err
}

func zooKeeperClass(err error) error {
	var named *classified
	switch {
	case err == nil, errors.As(err, &named):
		return err
	case err == zk.ErrNoNode:
		return &classified{"no-key", err.Error()}
	case err == zk.ErrConnectionClosed, err == zk.ErrSessionExpired, err == zk.ErrNoServer:
		return &classified{"connection", err.Error()}
	}
	return &classified{"other", err.Error()}
}
