// An application with gorilla/sessions over boj/redistore and redigo.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"

	"github.com/boj/redistore"
	"github.com/gorilla/sessions"
)

// The life of a session, in seconds.
const ttl = 1800

// The version of a Debian package.
func packaged(name string) string {
	out, err := exec.Command("dpkg-query", "--show", "--showformat=${source:Upstream-Version}", name).Output()
	if err != nil {
		log.Fatal(err)
	}
	return strings.SplitN(string(out), "+", 2)[0]
}

func main() {
	store, err := redistore.NewRediStore(8, "tcp", net.JoinHostPort(os.Getenv("REDIS_HOST"), os.Getenv("REDIS_PORT")), "", []byte("only for tests, but of 32 bytes.."))
	if err != nil {
		log.Fatal(err)
	}
	store.SetMaxAge(ttl)
	page := func(method, path string, work func(*sessions.Session, *http.Request) string) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			session, err := store.Get(r, "session")
			if err != nil || r.Method != method {
				http.Error(w, fmt.Sprint(r.Method, err), http.StatusInternalServerError)
				return
			}
			answer := work(session, r)
			// Else every visitor gets a session.
			if session.Values["user"] != nil || session.Options.MaxAge < 0 {
				if err := session.Save(r, w); err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
			}
			fmt.Fprint(w, answer)
		})
	}
	page("POST", "/login", func(session *sessions.Session, r *http.Request) string {
		session.Values["user"] = r.URL.Query().Get("user")
		return "ok"
	})
	page("GET", "/me", func(session *sessions.Session, r *http.Request) string {
		user, _ := session.Values["user"].(string)
		return user
	})
	page("POST", "/count", func(session *sessions.Session, r *http.Request) string {
		count, _ := session.Values["count"].(int)
		session.Values["count"] = count + 1
		return fmt.Sprint(count + 1)
	})
	page("POST", "/logout", func(session *sessions.Session, r *http.Request) string {
		session.Options.MaxAge = -1
		return "ok"
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	about := map[string]interface{}{
		"name":    "gorilla/sessions, boj/redistore",
		"version": "redistore " + packaged("golang-github-boj-redistore-dev") + ", redigo " + packaged("golang-github-gomodule-redigo-dev"),
		"config": "store, err := redistore.NewRediStore(10, \"tcp\", \"127.0.0.1:6379\", \"\", key)\n" +
			"session, err := store.Get(r, \"session\")",
		"ttl":   ttl,
		"keys":  "session_*",
		"touch": true,
		"http":  listener.Addr().(*net.TCPAddr).Port,
	}
	if err := json.NewEncoder(os.Stdout).Encode(about); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, nil))
}
