//go:build etcd

package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/etcdserver/api/v3rpc/rpctypes"
)

// Replacing a member of etcd in the way that its manual tells: the new one is added as a learner,
// started by whoever reads our first line, promoted when it has caught up, and the old one removed.

// etcd drops a change that is proposed before the one before is applied, and never answers it. So a
// call is given up and repeated, and there is a pause between the promotion and the removal.
const (
	memberCallPatience = time.Second
	// Between two attempts: etcd refuses until the learner has nearly all of the log.
	memberPause = 5 * time.Millisecond
	settlePause = 10 * time.Millisecond
	// etcd refuses to add anybody before its members have been connected for five seconds.
	healthPause = 6 * time.Second
)

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
	time.Sleep(healthPause)
	// Connected and ready: the one who measures says when.
	if err := emit(event{"ready"}); err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	started := time.Now()
	added, err := etcd.MemberAddAsLearner(patience, []string{*peerURL})
	if err != nil {
		return fmt.Errorf("add: %w", err)
	}
	if err := emit(memberStep{"add", monotonicNs(started), monotonicNs(time.Now()), 1}); err != nil {
		return err
	}
	err = carryOut(patience, "promote", rpctypes.ErrMemberNotLearner, func(c context.Context) error {
		_, err := etcd.MemberPromote(c, added.Member.ID)
		return err
	})
	if err != nil {
		return err
	}
	time.Sleep(settlePause)
	return carryOut(patience, "remove", rpctypes.ErrMemberNotFound, func(c context.Context) error {
		_, err := etcd.MemberRemove(c, oldID)
		return err
	})
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

// Do a step until it has succeeded, and tell; `already` is the error that says that it has before.
func carryOut(
	patience context.Context, name string, already error, call func(context.Context) error,
) error {
	started := time.Now()
	for attempt := 1; ; attempt++ {
		once, cancel := context.WithTimeout(patience, memberCallPatience)
		err := call(once)
		cancel()
		if err == nil || errors.Is(err, already) {
			return emit(memberStep{name, monotonicNs(started), monotonicNs(time.Now()), attempt})
		}
		if patience.Err() != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		time.Sleep(memberPause)
	}
}
