//! Lua scripts: a bounded number of threads, each with a sandboxed virtual machine. It knows no command and no entry:
//! what a script asks of Redis goes to the function that it is run with.

mod bits;
mod cjson;
mod convert;
mod lua_number;
mod machine;
mod pool;
pub mod source;
mod watch;

pub use machine::{Host, Job, Machine, Ran};
pub use pool::Pool;
pub use watch::Limits;
