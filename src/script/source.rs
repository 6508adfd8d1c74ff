//! Scripts that were sent: compiled once, found again by their SHA-1, bounded. It runs nothing.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use mlua::chunk::Compiler;
use sha1::{Digest, Sha1};

/// Scripts that are remembered; the least recently used is forgotten.
const MAX_SCRIPTS: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// Bytes of all remembered scripts, sources and code.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// A compiled script.
pub struct Script {
    /// The SHA-1 of its source, as 40 lower-case digits.
    pub sha: String,
    /// Whether its first line promises that it does not write.
    pub is_read_only: bool,
    pub(super) bytecode: Vec<u8>,
    bytes: usize,
}

/// The scripts of this daemon.
pub struct Scripts {
    known: Mutex<Known>,
}

struct Known {
    by_sha: LruCache<String, Arc<Script>>,
    bytes: usize,
}

/// A script may hold what a client wants to keep to itself: `Debug` shows sizes only.
impl fmt::Debug for Scripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.lock();
        f.debug_struct("Scripts").field("count", &known.by_sha.len()).field("bytes", &known.bytes).finish()
    }
}

impl Scripts {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { known: Mutex::new(Known { by_sha: LruCache::new(MAX_SCRIPTS), bytes: 0 }) }
    }

    /// The script with this SHA-1, in any case of letters.
    pub fn find(&self, sha: &[u8]) -> Option<Arc<Script>> {
        let sha = std::str::from_utf8(sha).ok()?.to_ascii_lowercase();
        self.lock().by_sha.get(&sha).cloned()
    }

    /// The script with this source, compiled now if it is new.
    ///
    /// # Errors
    /// A text for the client, with its code.
    pub fn load(&self, source: &[u8]) -> Result<Arc<Script>, String> {
        let sha = sha1hex(source);
        if let Some(script) = self.lock().by_sha.get(&sha) {
            return Ok(Arc::clone(script));
        }
        let script = Arc::new(compile(sha, source)?);
        let mut known = self.lock();
        known.bytes += script.bytes;
        if let Some((_, old)) = known.by_sha.push(script.sha.clone(), Arc::clone(&script)) {
            known.bytes -= old.bytes;
        }
        while known.bytes > MAX_BYTES {
            let Some((_, old)) = known.by_sha.pop_lru() else { break };
            known.bytes -= old.bytes;
        }
        Ok(script)
    }

    /// Forgets all.
    pub fn clear(&self) {
        let mut known = self.lock();
        known.by_sha.clear();
        known.bytes = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The SHA-1 as 40 lower-case hexadecimal digits.
#[must_use]
pub fn sha1hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha1::digest(bytes).iter().fold(String::with_capacity(40), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn compile(sha: String, source: &[u8]) -> Result<Script, String> {
    let (is_read_only, code) = shebang(source)?;
    // The first line stays as an empty one, so that lines are counted right.
    let compiler = Compiler::new().set_optimization_level(1).set_debug_level(1);
    let bytecode = compiler.compile(code).map_err(|error| {
        let text = match error {
            mlua::Error::SyntaxError { message, .. } => message,
            other => other.to_string(),
        };
        // The compiler names no chunk: it counts lines as ":1: …".
        let text = text.trim_start_matches(':');
        format!("ERR Error compiling script (new function): user_script:{text}")
    })?;
    let bytes = source.len() + bytecode.len() + 256;
    Ok(Script { sha, is_read_only, bytecode, bytes })
}

/// What a first line `#!lua flags=…` says, and the rest.
fn shebang(source: &[u8]) -> Result<(bool, &[u8]), String> {
    if !source.starts_with(b"#!") {
        return Ok((false, source));
    }
    let Some(end) = source.iter().position(|byte| *byte == b'\n') else {
        return Err("ERR Invalid script shebang".into());
    };
    let line = String::from_utf8_lossy(&source[..end]);
    let mut words = line.split_ascii_whitespace();
    let engine = words.next().unwrap_or_default();
    if engine != "#!lua" {
        return Err(format!("ERR Unexpected engine in script shebang: {engine}"));
    }
    let mut is_read_only = false;
    for word in words {
        let Some(flags) = word.strip_prefix("flags=") else {
            return Err(format!("ERR Unknown lua shebang option: {word}"));
        };
        for flag in flags.split(',').filter(|flag| !flag.is_empty()) {
            match flag {
                "no-writes" => is_read_only = true,
                "allow-oom" | "allow-stale" | "no-cluster" | "allow-cross-slot-keys" => {}
                _ => return Err(format!("ERR Unexpected flag in script shebang: {flag}")),
            }
        }
    }
    Ok((is_read_only, &source[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_read_as_by_redis() {
        for (source, expected) in [
            ("return 1", Ok(false)),
            ("#!lua\nreturn 1", Ok(false)),
            ("#!lua flags=no-writes\nreturn 1", Ok(true)),
            ("#!lua flags=allow-oom,no-writes\nreturn 1", Ok(true)),
            ("#!lua flags=nope\nreturn 1", Err("ERR Unexpected flag in script shebang: nope")),
            ("#!js\nreturn 1", Err("ERR Unexpected engine in script shebang: #!js")),
            ("#!lua name=x\nreturn 1", Err("ERR Unknown lua shebang option: name=x")),
            ("#!lua", Err("ERR Invalid script shebang")),
        ] {
            let found = compile(String::new(), source.as_bytes()).map(|script| script.is_read_only);
            assert_eq!(found, expected.map_err(str::to_owned), "{source}");
        }
    }

    #[test]
    fn scripts_are_remembered_within_bounds() {
        let scripts = Scripts::new();
        let first = scripts.load(b"return 1").expect("it compiles");
        assert_eq!(first.sha, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert!(scripts.find(b"E0E1F9FABFC9D4800C877A703B823AC0578FF8DB").is_some());
        for number in 0..MAX_SCRIPTS.get() {
            scripts.load(format!("return 'x{number}'").as_bytes()).expect("it compiles");
        }
        assert!(scripts.find(first.sha.as_bytes()).is_none());
        assert_eq!(scripts.lock().by_sha.len(), MAX_SCRIPTS.get());
        let large = format!("return {{'{}'}}", "x".repeat(MAX_BYTES / 3));
        for letter in ["a", "b", "c"] {
            scripts.load(large.replace('x', letter).as_bytes()).expect("it compiles");
        }
        assert!(scripts.lock().bytes <= MAX_BYTES);
        scripts.clear();
        let known = scripts.lock();
        assert_eq!((known.by_sha.len(), known.bytes), (0, 0));
    }
}
