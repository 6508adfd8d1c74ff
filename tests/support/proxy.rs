//! A TCP proxy whose connections can be stalled, slowed and cut while they are in use, and healed again.
//! It knows nothing about what passes through it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// They pass.
    Clear,
    /// They pass, each piece so much later.
    Slow(Duration),
    /// They are kept, in both directions, until the weather changes; connections stay open.
    Stalled,
    /// What the client sends passes; what the server answers is kept.
    Deaf,
    /// Connections are closed, and new ones as soon as they are made.
    Cut,
}

/// A proxy on a free port of this machine. Dropping it closes everything.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    weather: Weather,
    /// Told from each other by number: a thread that was kept up must notice that its own connection is gone.
    connections: Vec<(u64, [TcpStream; 2])>,
    next: u64,
    ended: bool,
}

/// Which way a thread carries bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Reply,
}

impl Proxy {
    /// A proxy before a port of this machine.
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let own = listener.local_addr().expect("the listener is bound").port();
        let state = State { weather: Weather::Clear, connections: Vec::new(), next: 0, ended: false };
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from(([127, 0, 0, 1], port)),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if accepting.lock().ended {
                    return;
                }
                let serving = Arc::clone(&accepting);
                std::thread::spawn(move || serving.serve(client));
            }
        });
        Self { port: own, shared }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the weather, for the connections that there are as well.
    pub fn set(&self, weather: Weather) {
        let mut state = self.shared.lock();
        state.weather = weather;
        if weather == Weather::Cut {
            state.close_all();
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The ports from which the server sees the open connections come.
    pub fn upstream_ports(&self) -> Vec<u16> {
        let state = self.shared.lock();
        state.connections.iter().filter_map(|(_, [_, server])| Some(server.local_addr().ok()?.port())).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        state.close_all();
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl State {
    fn close_all(&mut self) {
        for (_, sockets) in self.connections.drain(..) {
            for socket in sockets {
                // The other side may have closed it already.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Waits for the server to be reachable, connects to it, and carries bytes both ways until one side ends.
    fn serve(self: Arc<Self>, client: TcpStream) {
        let mut state = self.lock();
        while !state.ended && state.weather == Weather::Stalled {
            state = self.changed.wait(state).expect("no holder panics");
        }
        if state.ended || state.weather == Weather::Cut {
            return;
        }
        let Ok(server) = TcpStream::connect_timeout(&self.upstream, super::PATIENCE) else { return };
        // Small messages are what this is about.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let copies = (client.try_clone(), server.try_clone(), client.try_clone(), server.try_clone());
        let (Ok(client_2), Ok(server_2), Ok(client_3), Ok(server_3)) = copies else { return };
        let number = state.next;
        state.next += 1;
        state.connections.push((number, [client_2, server_2]));
        drop(state);
        let replying = Arc::clone(&self);
        std::thread::spawn(move || replying.carry(number, Way::Reply, server_3, client_3));
        self.carry(number, Way::Request, client, server);
    }

    fn carry(&self, number: u64, way: Way, mut from: TcpStream, mut to: TcpStream) {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut chunk) {
            if !self.pass(number, way) || to.write_all(&chunk[..length]).is_err() {
                break;
            }
        }
        // A side that ends while nothing passes is noticed by the other only later, as on a real network.
        self.pass(number, way);
        self.lock().connections.retain(|(other, _)| *other != number);
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    /// Returns when a piece may pass; false if its connection was cut.
    fn pass(&self, number: u64, way: Way) -> bool {
        let mut state = self.lock();
        let mut waited = false;
        loop {
            if !state.connections.iter().any(|(open, _)| *open == number) {
                return false;
            }
            match state.weather {
                Weather::Slow(pause) if !waited => {
                    drop(state);
                    std::thread::sleep(pause);
                    waited = true;
                    state = self.lock();
                }
                Weather::Stalled => state = self.changed.wait(state).expect("no holder panics"),
                Weather::Deaf if way == Way::Reply => {
                    state = self.changed.wait(state).expect("no holder panics");
                }
                _ => return true,
            }
        }
    }
}
