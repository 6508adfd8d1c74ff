//! A web browser, as far as sessions need one: it sends requests and keeps cookies. It knows no application.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::PATIENCE;

/// One visitor of one application.
#[derive(Clone)]
pub struct Browser {
    port: u16,
    cookies: BTreeMap<String, String>,
}

/// What an application answered.
#[derive(Debug)]
pub struct Page {
    /// The HTTP status; 0 if no HTTP came.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Browser {
    /// A visitor without cookies.
    pub fn new(port: u16) -> Self {
        Self { port, cookies: BTreeMap::new() }
    }

    /// Asks for a page.
    pub fn get(&mut self, path: &str) -> Page {
        self.request("GET", path)
    }

    /// Sends an empty form.
    pub fn post(&mut self, path: &str) -> Page {
        self.request("POST", path)
    }

    /// What would be sent as cookies.
    pub fn cookies(&self) -> &BTreeMap<String, String> {
        &self.cookies
    }

    fn request(&mut self, method: &str, path: &str) -> Page {
        let answer = self.exchange(method, path).unwrap_or_default();
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut chunked = false;
        for line in head.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            match name.to_ascii_lowercase().as_str() {
                "set-cookie" => self.keep(value.trim()),
                "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        let body = if chunked { crate::support::http::unchunk(body) } else { body.to_owned() };
        Page { status, body: body.trim().to_owned() }
    }

    fn exchange(&self, method: &str, path: &str) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], self.port)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n", self.port);
        if method == "POST" {
            head.push_str("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n");
        }
        if !self.cookies.is_empty() {
            let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            head = format!("{head}Cookie: {}\r\n", pairs.join("; "));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A cookie that is empty or over is one less.
    fn keep(&mut self, line: &str) {
        let mut parts = line.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let is_over = parts.any(|part| {
            let part = part.to_ascii_lowercase();
            part == "max-age=0" || part.starts_with("max-age=-") || part.contains("1970")
        });
        if is_over || matches!(value, "" | "\"\"" | "deleted") {
            self.cookies.remove(name);
        } else {
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }
}
