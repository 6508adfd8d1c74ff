//! Room for reading and writing that connections borrow while they are busy, from the thread that runs them. A connection
//! that waits for its client holds none; and few buffers, used in turn, stay in the processor's cache.

use std::cell::RefCell;

use bytes::BytesMut;

/// The size of a buffer: sixteen pipelined requests of a session of 1 KiB fit, or their replies.
pub const CHUNK: usize = 32 * 1024;

/// Buffers that a thread keeps when nobody needs them.
const KEPT: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for at least [`CHUNK`] bytes.
#[must_use]
pub fn take() -> BytesMut {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| BytesMut::with_capacity(CHUNK))
}

/// Takes the memory of a buffer whose content is over, and leaves none in its place. What grew large, or lost its
/// beginning, is freed.
pub fn give_back(buffer: &mut BytesMut) {
    let mut buffer = std::mem::take(buffer);
    if (CHUNK..=2 * CHUNK).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_used_again() {
        let mut buffer = take();
        buffer.extend_from_slice(b"over");
        let place = buffer.as_ptr();
        give_back(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
        let again = take();
        assert!(again.is_empty() && again.as_ptr() == place && again.capacity() >= CHUNK);
    }

    #[test]
    fn what_grew_is_freed_and_few_are_kept() {
        give_back(&mut BytesMut::with_capacity(3 * CHUNK));
        give_back(&mut BytesMut::new());
        assert!(SPARE.with_borrow(Vec::is_empty));
        let mut many: Vec<BytesMut> = (0..2 * KEPT).map(|_| take()).collect();
        many.iter_mut().for_each(give_back);
        assert_eq!(SPARE.with_borrow(Vec::len), KEPT);
    }
}
