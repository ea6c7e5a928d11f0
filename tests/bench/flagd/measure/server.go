package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// A contender is one of the two programs, and the first of its four ports.
type contender struct {
	name, binary string
	port         int
	environment  []string
}

// A server is a contender that runs.
type server struct {
	contender
	// The file that it reads its flags from.
	file       string
	process    *exec.Cmd
	connection *grpc.ClientConn
	ended      chan struct{}
}

// start runs it on the core of the servers with the flags in a file of its own, and waits until it answers.
func start(c contender, core int, dir string, flags []byte) (*server, error) {
	dir = filepath.Join(dir, c.name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &server{contender: c, file: filepath.Join(dir, "flags.json"), ended: make(chan struct{})}
	if _, err := s.replaceAt(flags); err != nil {
		return nil, err
	}
	sources, err := json.Marshal([]map[string]string{{"uri": s.file, "provider": "fsnotify"}})
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	port := func(offset int) string { return strconv.Itoa(c.port + offset) }
	s.process = exec.Command("taskset", "-c", strconv.Itoa(core), c.binary, "start", "--sources", string(sources),
		"--port", port(0), "--management-port", port(1), "--sync-port", port(2), "--ofrep-port", port(3))
	s.process.Dir, s.process.Stdout, s.process.Stderr = dir, log, log
	s.process.Env = append(os.Environ(), c.environment...)
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.process.Wait()
		close(s.ended)
	}()
	s.connection, err = s.connect()
	if err != nil {
		s.stop()
		return nil, err
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		answer, err := http.Get("http://127.0.0.1:" + port(1) + "/readyz")
		if err == nil {
			answer.Body.Close()
			err = fmt.Errorf("/readyz says %s", answer.Status)
			if answer.StatusCode == http.StatusOK {
				// flagd is ready before it has its flags.
				var on bool
				if on, err = s.first(); on && err == nil {
					return s, nil
				}
			}
		}
		select {
		case <-s.ended:
		case <-time.After(20 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		s.stop()
		said, _ := os.ReadFile(filepath.Join(dir, "log"))
		return nil, fmt.Errorf("%s was not ready within 60 s, or ended: %w; it said: %s", c.name, err, said)
	}
}

// connect is a connection of its own, as each application has one.
func (s *server) connect() (*grpc.ClientConn, error) {
	return grpc.NewClient(s.grpcAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// replaceAt puts a new file where the old one was, in one step, and says when that step began.
func (s *server) replaceAt(flags []byte) (time.Time, error) {
	next := s.file + ".next"
	if err := os.WriteFile(next, flags, 0o644); err != nil {
		return time.Time{}, err
	}
	began := time.Now()
	return began, os.Rename(next, s.file)
}

func (s *server) stop() {
	if s.connection != nil {
		s.connection.Close()
	}
	s.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		s.process.Process.Kill()
		<-s.ended
	}
}

func (s *server) grpcAddress() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }
func (s *server) ofrepURL() string    { return fmt.Sprintf("http://127.0.0.1:%d", s.port+3) }

// cpu is the time that all its threads were on a CPU.
func (s *server) cpu() (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.process.Process.Pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("%s has no threads in /proc: %w", s.name, err)
	}
	var sum time.Duration
	for _, file := range files {
		read, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		nanoseconds, _, _ := strings.Cut(string(read), " ")
		spent, err := strconv.ParseInt(nanoseconds, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s has no time in it: %w", file, err)
		}
		sum += time.Duration(spent)
	}
	return sum, nil
}

// resident is VmRSS in bytes, mapped files included.
func (s *server) resident() (float64, error) {
	read, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(read)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kibibytes, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kibibytes * 1024, err
		}
	}
	return 0, fmt.Errorf("/proc names no VmRSS of %s", s.name)
}
