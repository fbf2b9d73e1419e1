//go:build etcd

package main

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"
)

// etcd v3 over gRPC. Its reads are linearizable unless asked otherwise, and are not here.

func init() {
	drivers["etcd"] = driver{open: openEtcd, concurrent: true}
}

type etcdClient struct {
	settings connection
	etcd     *clientv3.Client
}

// Return the settings of a client that writes no log: etcd's own warns about every refusal.
func etcdConfig(addresses []string, dialTimeout time.Duration) clientv3.Config {
	silent := zap.NewProductionConfig()
	silent.Level = zap.NewAtomicLevelAt(zap.FatalLevel)
	return clientv3.Config{Endpoints: addresses, DialTimeout: dialTimeout, LogConfig: &silent}
}

func openEtcd(settings connection) (client, error) {
	etcd, err := clientv3.New(etcdConfig([]string{settings.address}, settings.timeout))
	if err != nil {
		return nil, err
	}
	return &etcdClient{settings, etcd}, nil
}

func (c *etcdClient) close() { c.etcd.Close() }

func (c *etcdClient) do(requests []request, outcomes []error) {
	for i, r := range requests {
		outcomes[i] = etcdClass(c.one(r))
	}
}

func (c *etcdClient) one(r request) error {
	patience, cancel := context.WithTimeout(context.Background(), c.settings.timeout)
	defer cancel()
	if !r.read {
		_, err := c.etcd.Put(patience, r.key, string(r.value))
		return err
	}
	reply, err := c.etcd.Get(patience, r.key)
	if err != nil {
		return err
	}
	if len(reply.Kvs) == 0 {
		return &classified{"no-key", "a key was not there"}
	}
	return checkLength(len(reply.Kvs[0].Value), c.settings.valueBytes)
}

func etcdClass(err error) error {
	var named *classified
	switch {
	case err == nil, errors.As(err, &named):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return &classified{"timeout", err.Error()}
	}
	return &classified{status.Code(err).String(), err.Error()}
}
