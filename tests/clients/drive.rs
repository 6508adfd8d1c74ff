//! What a visitor does with an application whose sessions are in the server under test, and what must be true of it.
//!
//! Every application answers the same few pages: `POST /login?user=`, `GET /me` (the user, or nothing), `POST /count` (one more
//! in the session; the number), `POST /rotate` (a new id for the same session), `POST /logout`. What its back end
//! can do it says of itself; each step that passed is returned by its name.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::app::App;
use super::browser::{Browser, Page};
use super::server::Server;
use crate::support::client::{Client, Value};
use crate::support::{PATIENCE, wait_for};

/// Requests of one session at once, and rounds of them.
const AT_ONCE: usize = 6;
const ROUNDS: usize = 3;
/// How much of its life a new session may have lost by the time we look, in seconds.
const SLACK: i64 = 120;

/// Drives one application through the life of its sessions.
pub fn drive(app: &App, server: &mut Server) -> Vec<String> {
    let mut visit = Visit { app, passed: Vec::new(), ada: Browser::new(app.http) };
    visit.log_in(server);
    if server.restart() {
        visit.after_restart();
    }
    if app.about.is("touch") {
        visit.touch(server);
    }
    if app.about.is("rotate") {
        visit.rotate(server);
    }
    visit.concurrent();
    visit.expire(server);
    visit.log_out(server);
    visit.passed
}

struct Visit<'a> {
    app: &'a App,
    passed: Vec<String>,
    ada: Browser,
}

impl Visit<'_> {
    fn pass(&mut self, step: &str) {
        self.passed.push(step.to_owned());
    }

    fn log_in(&mut self, server: &Server) {
        let life = self.app.about.number("ttl");
        let mut client = server.client();
        assert_eq!(me(&mut self.ada), "", "nobody is logged in at first");
        let before = self.keys(&mut client);
        ok(self.ada.post("/login?user=ada"));
        let key = self.new_key(&mut client, &before);
        assert!(!self.ada.cookies().is_empty(), "a session has a cookie");
        let left = seconds_left(&mut client, &key);
        assert!(left > life - SLACK && left <= life + SLACK, "a session lives for {life} s, not {left} s");
        self.pass("log in");

        assert_eq!(me(&mut self.ada), "ada");
        let mut grace = Browser::new(self.app.http);
        assert_eq!(me(&mut grace), "", "a visitor without the cookie is somebody else");
        ok(grace.post("/login?user=grace"));
        assert_eq!((me(&mut grace), me(&mut self.ada)), ("grace".to_owned(), "ada".to_owned()));
        ok(grace.post("/logout"));
        self.pass("read");

        assert_eq!((count(&mut self.ada), count(&mut self.ada)), (1, 2));
        self.pass("write");
    }

    /// The server was restarted. Clients may take a moment to see that their connections are gone.
    fn after_restart(&mut self) {
        wait_for("the session is there after a restart of the server", || {
            let page = self.ada.get("/me");
            assert!(page.status != 200 || page.body == "ada", "logged out by a restart: {page:?}");
            (page.status == 200).then_some(())
        });
        // Each connection of a pool has to find out for itself.
        wait_for("all connections are new", || {
            (0..AT_ONCE).all(|_| self.ada.clone().get("/me").status == 200).then_some(())
        });
        assert_eq!(count(&mut self.ada), 3, "what the session held is there after a restart of the server");
        self.pass("restart of the server");
    }

    /// A request that changes nothing makes the session live longer.
    fn touch(&mut self, server: &Server) {
        let life = self.app.about.number("ttl");
        let mut client = server.client();
        let key = self.only_key(&mut client);
        assert_eq!(client.ask(&format!("EXPIRE {key} 300")), ":1\\r\\n");
        assert_eq!(me(&mut self.ada), "ada");
        // Some touch after they have answered.
        wait_for("a read renews the session", || (seconds_left(&mut client, &key) > life - SLACK).then_some(()));
        self.pass("touch");
    }

    /// The session under a new id; the old one is worth nothing.
    fn rotate(&mut self, server: &Server) {
        let mut client = server.client();
        let (old, mut thief) = (self.only_key(&mut client), self.ada.clone());
        let counted = count(&mut self.ada);
        ok(self.ada.post("/rotate"));
        assert_ne!(self.ada.cookies(), thief.cookies(), "a new id is a new cookie");
        assert_eq!(me(&mut self.ada), "ada");
        assert_eq!(count(&mut self.ada), counted + 1, "the session is the same one");
        assert_eq!(me(&mut thief), "", "the old id is refused");
        let keys = self.keys(&mut client);
        assert!(!keys.contains(&old), "the old id is gone from the server");
        self.pass("regenerate id");
    }

    /// One session used by many requests at once, and other visitors beside it.
    fn concurrent(&mut self) {
        let counted = count(&mut self.ada);
        let (ada, http) = (&self.ada, self.app.http);
        std::thread::scope(|scope| {
            let visitors: Vec<_> = (0..AT_ONCE)
                .map(|number| {
                    scope.spawn(move || {
                        let mut other = Browser::new(http);
                        ok(other.post(&format!("/login?user=u{number}")));
                        for _ in 0..ROUNDS {
                            count(&mut ada.clone());
                            assert_eq!(me(&mut other), format!("u{number}"));
                        }
                        ok(other.post("/logout"));
                    })
                })
                .collect();
            for visitor in visitors {
                if let Err(panic) = visitor.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        assert_eq!(me(&mut self.ada), "ada");
        let counts = i64::try_from(AT_ONCE * ROUNDS).expect("small");
        let now = count(&mut self.ada) - 1 - counted;
        self.pass("concurrent requests");
        if self.app.about.is("lock") {
            assert_eq!(now, counts, "the lock lets no count be lost");
            self.pass("locking");
        } else {
            assert!((1..=counts).contains(&now), "{counts} requests cannot count {now} times");
        }
    }

    /// When the session's time is over the user is logged out; a back end with a database of its own reads it again.
    fn expire(&mut self, server: &Server) {
        let mut client = server.client();
        let key = self.only_key(&mut client);
        client.ask(&format!("PEXPIRE {key} 20"));
        wait_for("the key expires", || (client.ask(&format!("EXISTS {key}")) == ":0\\r\\n").then_some(()));
        if self.app.about.is("refill") {
            assert_eq!(me(&mut self.ada), "ada");
            assert!(self.keys(&mut client).contains(&key), "what was read from the database is cached again");
            self.pass("refill after expiry");
            return;
        }
        assert_eq!(me(&mut self.ada), "", "an expired session is not served");
        self.ada = Browser::new(self.app.http);
        ok(self.ada.post("/login?user=ada"));
        assert_eq!(me(&mut self.ada), "ada");
        self.pass("expiry");
    }

    fn log_out(&mut self, server: &Server) {
        let mut client = server.client();
        let (key, mut thief) = (self.only_key(&mut client), self.ada.clone());
        ok(self.ada.post("/logout"));
        assert_eq!(me(&mut self.ada), "");
        assert_eq!(me(&mut thief), "", "the cookie of a session that was logged out is refused");
        assert!(!self.keys(&mut client).contains(&key), "the session is gone from the server");
        self.pass("log out");
    }

    /// The sessions that the server has. Keys are shown in redis-cli's quoting.
    fn keys(&self, client: &mut Client) -> BTreeSet<String> {
        let pattern = self.app.about.text("keys");
        let reply = client.value(&format!("KEYS {pattern}"));
        let keys = reply.list().iter().map(|key| match key {
            Value::Text(bytes) => format!("\"{}\"", bytes.escape_ascii()),
            other => panic!("a key is text: {other:?}"),
        });
        keys.collect()
    }

    /// Ada's, when nobody else is logged in. Others' log-outs may still be under way.
    fn only_key(&self, client: &mut Client) -> String {
        self.new_key(client, &BTreeSet::new())
    }

    fn new_key(&self, client: &mut Client, before: &BTreeSet<String>) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let keys = self.keys(client);
            let mut new = keys.difference(before);
            if let (Some(key), None) = (new.next(), new.next()) {
                return key.clone();
            }
            assert!(Instant::now() < end, "the sessions should be {} and one more: {keys:?}", before.len());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn ok(page: Page) -> String {
    assert_eq!(page.status, 200, "{page:?}");
    page.body
}

fn me(browser: &mut Browser) -> String {
    ok(browser.get("/me"))
}

fn count(browser: &mut Browser) -> i64 {
    let body = ok(browser.post("/count"));
    body.parse().unwrap_or_else(|_| panic!("a count is a number: {body}"))
}

fn seconds_left(client: &mut Client, key: &str) -> i64 {
    match client.value(&format!("TTL {key}")) {
        Value::Text(number) => String::from_utf8_lossy(&number).parse().expect("a TTL is a number"),
        other => panic!("a TTL is a number: {other:?}"),
    }
}
