//go:build etcd

package main

import (
	"context"
	"errors"

	"go.etcd.io/etcd/clientv3"
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

func openEtcd(settings connection) (client, error) {
	etcd, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{settings.address},
		DialTimeout: settings.timeout,
	})
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
