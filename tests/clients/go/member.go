package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
)

// membership is what one member of a group is told.
type membership struct {
	bootstrap, group, topic string
	// The strategy that all clients know, instead of the library's own choice.
	rangeStrategy bool
	// Speak the oldest protocol versions that the library can speak to a broker of today.
	oldVersions bool
}

// account writes what a member owns and reads, one line an event:
//
//	assigned PARTITION,PARTITION...
//	record PARTITION OFFSET TIMESTAMP KEY VALUE NAME=VALUE,NAME=VALUE...
//
// with tabs between the fields, flushed before the member commits.
type account struct {
	mutex sync.Mutex
	out   *bufio.Writer
	owned map[int32]bool
}

func newAccount() *account {
	return &account{out: bufio.NewWriter(os.Stdout), owned: map[int32]bool{}}
}

// owns changes what the member owns and tells all of it.
func (a *account) owns(added, removed []int32) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for _, partition := range added {
		a.owned[partition] = true
	}
	for _, partition := range removed {
		delete(a.owned, partition)
	}
	var all []string
	for partition := range a.owned {
		all = append(all, fmt.Sprint(partition))
	}
	slices.Sort(all)
	fmt.Fprintf(a.out, "assigned\t%s\n", strings.Join(all, ","))
	must(a.out.Flush(), "writing the account")
}

// read tells one record.
func (a *account) read(partition int32, r record) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	var list []string
	for _, h := range r.headers {
		list = append(list, h.name+"="+h.value)
	}
	fmt.Fprintf(a.out, "record\t%d\t%d\t%d\t%s\t%s\t%s\n",
		partition, r.offset, r.timestamp, r.key, r.value, strings.Join(list, ","))
}

// flush sends the lines on their way.
func (a *account) flush() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	must(a.out.Flush(), "writing the account")
}

// untilInputEnds calls leave once standard input is at its end.
func untilInputEnds(leave func()) {
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		must(err, "standard input")
		leave()
	}()
}
