// Go clients of a Kafka-compatible broker: franz-go and sarama, each against the same checks.
//
//	clients franz|sarama exchange BOOTSTRAP
//	clients franz|sarama member BOOTSTRAP GROUP TOPIC default|range old|new
//	clients franz|sarama describe BOOTSTRAP GROUP TOPIC
//	clients franz|sarama delete BOOTSTRAP GROUP TOPIC
//
// exchange says "ok NAME" for every run that held. member says what it owns and reads, a line each
// (see member.go), until its standard input ends. describe and delete say "ok" for every
// administrative call whose answer was right. A check that fails ends the program with status 1.
package main

import (
	"fmt"
	"os"
)

// library is what each client must be able to do.
type library struct {
	exchange func(bootstrap string)
	member   func(m membership)
	describe func(bootstrap, group, topic string)
	delete   func(bootstrap, group, topic string)
}

var libraries = map[string]library{
	"franz":  {franzExchange, franzMember, franzDescribe, franzDelete},
	"sarama": {saramaExchange, saramaMember, saramaDescribe, saramaDelete},
}

func main() {
	if len(os.Args) < 4 {
		fail("usage: clients LIBRARY SCENE BOOTSTRAP ...")
	}
	lib, known := libraries[os.Args[1]]
	require(known, "no library %s", os.Args[1])
	scene, bootstrap, rest := os.Args[2], os.Args[3], os.Args[4:]
	switch {
	case scene == "exchange" && len(rest) == 0:
		lib.exchange(bootstrap)
	case scene == "member" && len(rest) == 4:
		lib.member(membership{bootstrap, rest[0], rest[1], rest[2] == "range", rest[3] == "old"})
	case scene == "describe" && len(rest) == 2:
		lib.describe(bootstrap, rest[0], rest[1])
	case scene == "delete" && len(rest) == 2:
		lib.delete(bootstrap, rest[0], rest[1])
	default:
		fail("no scene %s with %d arguments", scene, len(rest))
	}
}

// require ends the program unless the claim holds.
func require(holds bool, format string, values ...any) {
	if !holds {
		fail(format, values...)
	}
}

// must ends the program when an operation failed.
func must(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}

func ok(format string, values ...any) {
	fmt.Printf("ok "+format+"\n", values...)
}
