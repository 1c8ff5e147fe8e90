package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	roleEnv = "STORE_TEST_ROLE"
	pathEnv = "STORE_TEST_PATH"
	fromEnv = "STORE_TEST_FROM"
)

// childMain is what the test binary does when a test started it to be killed or to be given a broken
// disk. It prints a line for each answer it gets: "ack n index", "nack n" or "broken n".
func childMain() {
	path := os.Getenv(pathEnv)
	var from int
	fmt.Sscan(os.Getenv(fromEnv), &from)
	var err error
	switch os.Getenv(roleEnv) {
	case "":
		return
	case "create":
		err = childCreate(path)
	case "crowd":
		err = childUpdates(path, from, 8, 1<<30)
	case "one":
		err = childUpdates(path, from, 1, 40)
	}
	if err != nil {
		fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	os.Exit(0)
}

func childNow() time.Time { return epoch }

func childCreate(path string) error {
	s, err := Create(context.Background(), path, childNow, who, opened())
	if err != nil {
		return err
	}
	return s.Close()
}

func childUpdates(path string, from, callers, each int) error {
	s, err := Open(context.Background(), path, childNow)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range each {
				n := from + i*callers + caller
				entry, err := s.Update(context.Background(), who, reserve(certificate(n)))
				switch {
				case err == nil:
					fmt.Printf("ack %d %d\n", n, entry.Index)
				case errors.Is(err, ErrBroken):
					fmt.Printf("broken %d\n", n)
				default:
					fmt.Printf("nack %d\n", n)
				}
			}
		})
	}
	wg.Wait()
	s.Close() // the disk may be broken on purpose
	return nil
}
