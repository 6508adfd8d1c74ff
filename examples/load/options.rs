//! What the command line says.

use clap::{Args, Parser, Subcommand};

use crate::template::Shape;

/// Load for the benchmarks.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send requests and measure.
    Run(RunOptions),
    /// Measure the time from a `DEL` on one server to the first nil from another.
    Logout(LogoutOptions),
}

/// Where, how much and what.
#[derive(Args, Debug)]
pub(crate) struct RunOptions {
    /// The server's port on 127.0.0.1.
    #[arg(long)]
    pub(crate) port: u16,

    /// Connections that send at the same time.
    #[arg(long, default_value_t = 50)]
    pub(crate) connections: usize,

    /// Commands sent together, before their replies are waited for.
    #[arg(long, default_value_t = 1)]
    pub(crate) pipeline: usize,

    /// End after so many requests.
    #[arg(long, required_unless_present = "seconds", conflicts_with = "seconds")]
    pub(crate) requests: Option<u64>,

    /// End after so long.
    #[arg(long)]
    pub(crate) seconds: Option<f64>,

    /// Do not measure the first seconds.
    #[arg(long, default_value_t = 0.0, requires = "seconds")]
    pub(crate) warm_up: f64,

    /// Requests a second, at even distances, whether or not the server keeps up (latency counts from when a request was
    /// due); otherwise each connection sends as soon as it has its reply.
    #[arg(long, conflicts_with = "pipeline")]
    pub(crate) rate: Option<f64>,

    /// The keys asked for, by number.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) keys: u64,

    /// Ask for one key after the other instead of at random.
    #[arg(long)]
    pub(crate) in_order: bool,

    /// Picks the random keys.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    #[command(flatten)]
    pub(crate) shape: ShapeOptions,

    /// A request's commands, each sent when the one before it was answered. `{key}` is the request's key, `{same}` the
    /// one value that belongs to it, `{new}` a value that it never had.
    #[arg(required = true)]
    pub(crate) steps: Vec<String>,
}

/// How keys and values look.
#[derive(Args, Clone, Debug)]
pub(crate) struct ShapeOptions {
    /// What a key begins with.
    #[arg(long, default_value = "key:")]
    pub(crate) key_prefix: String,

    /// The digits that follow.
    #[arg(long, default_value_t = 12)]
    pub(crate) key_digits: usize,

    /// The length of a value, at least.
    #[arg(long, default_value_t = 1024)]
    pub(crate) value_bytes: usize,

    /// The length of a value, at most; the same as at least, if not given.
    #[arg(long)]
    pub(crate) value_bytes_most: Option<usize>,

    /// Values that compress, as text does.
    #[arg(long)]
    pub(crate) text: bool,
}

impl ShapeOptions {
    pub(crate) fn shape(&self) -> Shape {
        let most = self.value_bytes_most.unwrap_or(self.value_bytes);
        Shape::new(&self.key_prefix, self.key_digits, self.value_bytes, most, self.text)
    }
}

/// Two servers, and how often.
#[derive(Args, Debug)]
pub(crate) struct LogoutOptions {
    /// The port of the server that deletes.
    #[arg(long)]
    pub(crate) port: u16,

    /// The port of the server that is asked.
    #[arg(long)]
    pub(crate) other: u16,

    /// Keys to delete, one after the other.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) rounds: u64,

    #[command(flatten)]
    pub(crate) shape: ShapeOptions,
}
