//! One connection: sends a batch of requests step by step and reads the replies. Does not choose keys or measure time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::template::{Expected, Shape, Template};

/// A server that is silent for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request: its key, and what makes its new value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) key: u64,
    pub(crate) stamp: u64,
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More replies are owed.
    Waiting,
    /// The whole batch is answered.
    Finished,
}

/// The socket blocks: it is read only when it has something, and a batch is smaller than the buffers on its way, which a
/// server that reads empties.
pub(crate) struct Connection {
    socket: TcpStream,
    batch: Vec<Request>,
    step: usize,
    /// Replies of the step that are there.
    answered: usize,
    out: Vec<u8>,
    input: Vec<u8>,
    /// The bytes of `input` that are filled.
    filled: usize,
}

impl Connection {
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let (batch, out) = (Vec::new(), Vec::new());
        Ok(Self { socket, batch, step: 0, answered: 0, out, input: vec![0; 64 << 10], filled: 0 })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends the first step of these requests. The batch before must be finished.
    pub(crate) fn start(
        &mut self,
        batch: impl Iterator<Item = Request>,
        steps: &[Template],
        shape: &Shape,
    ) -> io::Result<()> {
        self.batch.clear();
        self.batch.extend(batch);
        self.step = 0;
        self.send(steps, shape)
    }

    fn send(&mut self, steps: &[Template], shape: &Shape) -> io::Result<()> {
        self.out.clear();
        self.answered = 0;
        for request in &self.batch {
            steps[self.step].encode(&mut self.out, shape, request.key, request.stamp);
        }
        self.socket.write_all(&self.out)
    }

    /// Reads once, checks the replies that are complete, and sends the next step when all of this one are.
    pub(crate) fn read(&mut self, steps: &[Template], shape: &Shape) -> io::Result<Progress> {
        if self.filled == self.input.len() {
            self.input.resize(self.input.len() * 2, 0);
        }
        let read = self.socket.read(&mut self.input[self.filled..])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        self.filled += read;
        let mut used = 0;
        while self.answered < self.batch.len() {
            let expected = steps[self.step].expected;
            let key = self.batch[self.answered].key;
            let Some(length) = reply(&self.input[used..self.filled], expected, key, shape)? else { break };
            used += length;
            self.answered += 1;
        }
        self.input.copy_within(used..self.filled, 0);
        self.filled -= used;
        if self.answered < self.batch.len() {
            return Ok(Progress::Waiting);
        }
        if self.filled > 0 {
            return Err(io::Error::other("more replies than requests"));
        }
        self.step += 1;
        if self.step == steps.len() {
            return Ok(Progress::Finished);
        }
        self.send(steps, shape)?;
        Ok(Progress::Waiting)
    }
}

/// The length of the reply at the start of `bytes` if it is complete; an error if it is not the right one.
fn reply(bytes: &[u8], expected: Expected, key: u64, shape: &Shape) -> io::Result<Option<usize>> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let wrong = || Err(io::Error::other(format!("wrong reply: {}", String::from_utf8_lossy(line))));
    let number = || std::str::from_utf8(line.get(1..)?).ok()?.parse::<i64>().ok();
    match (expected, line.first()) {
        (Expected::Ok, Some(b'+')) => {
            if line == b"+OK" {
                Ok(Some(end + 1))
            } else {
                wrong()
            }
        }
        (Expected::Done, Some(b':')) => {
            if number().is_some_and(|done| done != 0) {
                Ok(Some(end + 1))
            } else {
                wrong()
            }
        }
        (Expected::Value, Some(b'$')) => {
            let Some(length) = number().and_then(|length| usize::try_from(length).ok()) else { return wrong() };
            let Some(body) = bytes.get(end + 1..end + 1 + length + 2) else { return Ok(None) };
            if shape.is_value(key, length, body) { Ok(Some(end + 1 + length + 2)) } else { wrong() }
        }
        _ => wrong(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_awaited_and_checked() {
        let shape = Shape::new("key:", 12, 24, 30, false);
        let value = "$24\r\n000000000042000000000000\r\n";
        for (expected, bytes, length) in [
            (Expected::Ok, "+OK\r\n+OK\r\n", Some(Some(5))),
            (Expected::Ok, "+OK", Some(None)),
            (Expected::Ok, "-ERR no\r\n", None),
            (Expected::Ok, "+QUEUED\r\n", None),
            (Expected::Done, ":1\r\n", Some(Some(4))),
            (Expected::Done, ":0\r\n", None),
            (Expected::Value, value, Some(Some(value.len()))),
            (Expected::Value, &value[..value.len() - 1], Some(None)),
            (Expected::Value, "$-1\r\n", None),
            (Expected::Value, "$24\r\n000000000043000000000000\r\n", None),
            (Expected::Value, ":1\r\n", None),
        ] {
            let found = reply(bytes.as_bytes(), expected, 42, &shape);
            assert_eq!(found.ok(), length, "{bytes:?}");
        }
    }
}
