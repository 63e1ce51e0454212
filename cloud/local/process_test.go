package local_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/local"
)

// helperVar tells the test binary to be a process of a test instead.
const helperVar = "LOCAL_TEST_HELPER"

var helpers = map[string]func(dir string) error{
	"hold": holdJournal,
	"idle": func(string) error { _, err := io.Copy(io.Discard, os.Stdin); return err },
}

func TestMain(m *testing.M) {
	if help := helpers[os.Getenv(helperVar)]; help != nil {
		if err := help(os.Getenv("LOCAL_TEST_DIR")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper prepares a process of the test binary; it ends when its stdin does.
func helper(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperVar+"="+name, "LOCAL_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// holdJournal writes records and says so, until it is killed.
func holdJournal(dir string) error {
	s, err := local.OpenStore(dir)
	if err != nil {
		return err
	}
	j, err := s.OpenJournal(context.Background(), "j")
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if _, err := j.Append([]byte(strings.Repeat(fmt.Sprintf("%d ", i), 1+i%50))); err != nil {
			return err
		}
		fmt.Println(i) // acknowledged
	}
}

// kill -9 while it writes: the kernel frees the lock, every acknowledged
// record is there, and the next writer goes on.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	total := 0
	for round := range 5 {
		cmd := helper(t, "hold", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		acked := 0
		for acked <= 20+round*7 && lines.Scan() {
			acked++
		}
		if _, err := s.OpenJournal(t.Context(), "j"); cloud.KindOf(err) != cloud.KindConflict {
			t.Errorf("a second process opened the journal: %v", err)
		}
		if alive, err := s.JournalAlive(t.Context(), "j"); !alive || err != nil {
			t.Errorf("alive while it is written: %v, %v", alive, err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			acked++
		}
		_ = cmd.Wait()
		if alive, err := s.JournalAlive(t.Context(), "j"); alive || err != nil {
			t.Errorf("alive after kill -9: %v, %v", alive, err)
		}
		j, err := s.OpenJournal(t.Context(), "j")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		if _, err := s.ReadJournal(t.Context(), "j", 0, func(int64, []byte) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		if n < total+acked {
			t.Errorf("%d records, %d were acknowledged", n, total+acked)
		}
		total = n
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A task that outlives its coordinator does not hold the journal for it.
func TestLockIsNotInherited(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	j, err := s.OpenJournal(t.Context(), "j")
	if err != nil {
		t.Fatal(err)
	}
	cmd := helper(t, "idle", "")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		_ = cmd.Wait()
	}()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if alive, err := s.JournalAlive(t.Context(), "j"); alive || err != nil {
		t.Errorf("alive: %v, %v", alive, err)
	}
	if j, err = s.OpenJournal(t.Context(), "j"); err != nil {
		t.Fatalf("open while a child lives: %v", err)
	}
	j.Close()
}
