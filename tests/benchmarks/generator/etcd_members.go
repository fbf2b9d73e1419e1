//go:build etcd

package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/clientv3"
)

// Replacing a member of etcd in the way that its manual tells: the new one is added as a learner,
// started by whoever reads our first line, promoted when it has caught up, and the old one removed.

// Between two attempts to promote: etcd refuses until the learner has nearly all of the log.
const promotePause = 5 * time.Millisecond

type memberStep struct {
	Step     string `json:"step"`
	StartNs  int64  `json:"start_ns"`
	EndNs    int64  `json:"end_ns"`
	Attempts int    `json:"attempts"`
}

func init() {
	modes["replace-member"] = runReplaceMember
}

func runReplaceMember(arguments []string) error {
	flags := flag.NewFlagSet("replace-member", flag.ExitOnError)
	addresses := flags.String("addresses", "", "HOST:PORT of members that stay, with commas")
	old := flags.String("old", "", "name of the member that is removed")
	peerURL := flags.String("peer-url", "", "where the new member will listen for its peers")
	timeout := flags.Duration("timeout", 5*time.Minute, "for all of it")
	flags.Parse(arguments)
	etcd, err := clientv3.New(etcdConfig(strings.Split(*addresses, ","), 5*time.Second))
	if err != nil {
		return err
	}
	defer etcd.Close()
	patience, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	oldID, err := memberID(patience, etcd, *old)
	if err != nil {
		return err
	}
	// Connected and ready: the one who measures says when.
	if err := emit(event{"ready"}); err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	var newID uint64
	steps := []struct {
		name  string
		pause time.Duration
		call  func() error
	}{
		{"add", 0, func() error {
			added, err := etcd.MemberAddAsLearner(patience, []string{*peerURL})
			if err == nil {
				newID = added.Member.ID
			}
			return err
		}},
		{"promote", promotePause, func() error {
			_, err := etcd.MemberPromote(patience, newID)
			return err
		}},
		{"remove", 0, func() error {
			_, err := etcd.MemberRemove(patience, oldID)
			return err
		}},
	}
	for _, step := range steps {
		if err := carryOut(patience, step.name, step.pause, step.call); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func memberID(patience context.Context, etcd *clientv3.Client, name string) (uint64, error) {
	members, err := etcd.MemberList(patience)
	if err != nil {
		return 0, err
	}
	for _, member := range members.Members {
		if member.Name == name {
			return member.ID, nil
		}
	}
	return 0, fmt.Errorf("no member is called %q", name)
}

// Do a step, again and again after a pause if there is one, and tell when it has succeeded.
func carryOut(
	patience context.Context, name string, pause time.Duration, call func() error,
) error {
	started := time.Now()
	for attempt := 1; ; attempt++ {
		err := call()
		if err == nil {
			return emit(memberStep{name, monotonicNs(started), monotonicNs(time.Now()), attempt})
		}
		if pause == 0 || patience.Err() != nil {
			return err
		}
		time.Sleep(pause)
	}
}
