package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// What every run sends and must get back. Record i goes to partition i % partitions, so offset n of
// partition p must hold record n*partitions + p: dense offsets and order are one comparison.
const (
	partitions = 3
	records    = 300
	perPart    = records / partitions
	stepMs     = 1_000
	deadline   = 60 * time.Second
)

var startMs = time.Now().UnixMilli() - 3_600_000

func unique(prefix string) string {
	var id [8]byte
	_, err := rand.Read(id[:])
	must(err, "random bytes")
	return prefix + "-" + hex.EncodeToString(id[:])
}

func key(i int) string { return fmt.Sprintf("key-%d", i) }

// value is of many lengths, some worth compressing; every 50th is empty.
func value(i int) string {
	if i%50 == 49 {
		return ""
	}
	return fmt.Sprintf("value-%d-", i) + strings.Repeat("x", i*7%500)
}

func timestamp(i int) int64 { return startMs + int64(i)*stepMs }

// header is one name and value: the same name comes twice, headers are a list and not a map.
type header struct{ name, value string }

func headers(i int) []header {
	return []header{{"number", fmt.Sprint(i)}, {"number", "again"}}
}

// record is a record in this program's own words, to compare what came back.
type record struct {
	offset, timestamp int64
	key, value        string
	headers           []header
}

// checkRecord fails unless got is what partition p must hold at offset n.
func checkRecord(run string, p, n int, got record) {
	i := n*partitions + p
	want := record{int64(n), timestamp(i), key(i), value(i), headers(i)}
	require(fmt.Sprint(got) == fmt.Sprint(want), "%s [%d]: %v is not %v", run, p, got, want)
}

// checkTimes asks for the first offset at or after a time, -1 for none.
func checkTimes(run string, p int, offsetAt func(timestamp int64) int64) {
	for _, n := range []int{0, 1, perPart / 2, perPart - 1} {
		exact := timestamp(n*partitions + p)
		for _, asked := range []int64{exact, exact - 1} {
			got := offsetAt(asked)
			require(got == int64(n), "%s [%d]: offset %d at %d, not %d", run, p, got, asked, n)
		}
	}
	past := offsetAt(timestamp(records) + 1)
	require(past == -1, "%s [%d]: offset %d past the end", run, p, past)
}

// await asks until what was asked for is there: a broker may answer a change before it shows.
func await(what string, reached func() bool) {
	for end := time.Now().Add(deadline); !reached(); time.Sleep(20 * time.Millisecond) {
		require(time.Now().Before(end), "%s: not within %v", what, deadline)
	}
}
