//! The process: arguments, logging, runtime, signals and the exit code. It serves nothing itself.

use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cloakroom::RunError;
use cloakroom::config::Config;
use cloakroom::config::load::{Ask, Inputs, Loaded, load};
use cloakroom::config::password::Password;
use cloakroom::config::show::effective;
use cloakroom::logging::{self, LogControl};
use cloakroom::signals::{Signal, Signals};
use cloakroom::store::error::Chain;
use cloakroom::store::postgres::url;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

// Many small values of all sizes that live long: glibc's allocator keeps far more memory for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit codes, from `sysexits.h`.
mod exit {
    /// The configuration is wrong; trying again is of no use (the unit file says so to systemd).
    pub(crate) const USAGE: u8 = 64;
    /// An internal fault, or a second signal to stop.
    pub(crate) const SOFTWARE: u8 = 70;
    /// Something of the machine: an address cannot be bound, a file cannot be read.
    pub(crate) const IO: u8 = 74;
}

fn main() -> ExitCode {
    let inputs = Inputs::of_process(url::check);
    let loaded = match load(&inputs) {
        Ok(Ask::Serve(loaded)) => *loaded,
        Ok(Ask::Text(text)) => return print(&text),
        Err(faults) => {
            // Before there is a log, and for the person at the terminal.
            let _ = writeln!(std::io::stderr(), "{faults}");
            return ExitCode::from(exit::USAGE);
        }
    };
    if loaded.check_only {
        return print(&describe(&loaded));
    }
    let log = match logging::init(loaded.config.log_format, &loaded.config.log_level) {
        Ok(log) => log,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            return ExitCode::from(exit::SOFTWARE);
        }
    };
    let panics = logging::install_panic_hook();
    for warning in &loaded.warnings {
        warn!(warning, "the configuration has a weakness");
    }
    let runtime = match runtime(loaded.config.workers) {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the runtime");
            return ExitCode::from(exit::IO);
        }
    };
    // The hook has logged and counted the panic; what is left to do is to end with the code for it.
    let serve = || runtime.block_on(serve(loaded.config, &inputs, &log, panics));
    let code = std::panic::catch_unwind(AssertUnwindSafe(serve)).unwrap_or(ExitCode::from(exit::SOFTWARE));
    // Whoever must be waited for was waited for in `serve`.
    runtime.shutdown_background();
    code
}

/// Runs the daemon to its end, and tells it what signals ask.
async fn serve(config: Config, inputs: &Inputs, log: &LogControl, panics: Arc<AtomicU64>) -> ExitCode {
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "cannot receive signals");
            return ExitCode::from(exit::IO);
        }
    };
    let shutdown = CancellationToken::new();
    let (password, changes) = watch::channel(config.password.clone());
    let mut run = pin!(run(config, shutdown.clone(), changes, panics));
    loop {
        let signal = tokio::select! {
            ended = &mut run => return ended,
            signal = signals.next() => signal,
        };
        match signal {
            Signal::Reload => reload(inputs, log, &password),
            Signal::Stop if shutdown.is_cancelled() => {
                error!("told to stop a second time; leaving at once");
                return ExitCode::from(exit::SOFTWARE);
            }
            Signal::Stop => {
                info!("told to stop; finishing what was begun");
                shutdown.cancel();
            }
        }
    }
}

/// Reads the configuration again and uses what can change while clients are served: the password and the log level.
fn reload(inputs: &Inputs, log: &LogControl, password: &watch::Sender<Option<Password>>) {
    let loaded = match load(inputs) {
        Ok(Ask::Serve(loaded)) => loaded,
        Ok(Ask::Text(_)) => return,
        Err(faults) => {
            for fault in &faults.0 {
                error!(%fault, "the configuration has a fault; nothing of it is used");
            }
            return;
        }
    };
    for warning in &loaded.warnings {
        warn!(warning, "the configuration has a weakness");
    }
    if let Err(error) = log.set_level(&loaded.config.log_level) {
        error!(%error, "cannot change the log level");
    }
    password.send_replace(loaded.config.password);
    info!(level = loaded.config.log_level, "password and log level read again; other changes need a restart");
}

/// The runtime. Threads that wake each other for every request cost more than they bring while few suffice, and the
/// client, or Postgres, needs processors too: so by default half of them serve. A lone thread need not be ready for others to
/// take its work, which makes each of its steps cheaper.
fn runtime(workers: u32) -> std::io::Result<Runtime> {
    let workers = match workers {
        0 => std::thread::available_parallelism()?.get().div_ceil(2),
        chosen => chosen as usize,
    };
    let mut builder = if workers == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder
        // Of no meaning to a lone thread.
        .worker_threads(workers)
        // For files and the embedded store's threads; connections never block.
        .max_blocking_threads(64)
        .thread_name("cloakroom")
        .enable_all()
        .build()
}

/// What `--check-config` says.
fn describe(loaded: &Loaded) -> String {
    let mut text = String::from("configuration ok\n");
    for (key, value) in effective(&loaded.config) {
        let _ = writeln!(text, "{key} = {value}");
    }
    for warning in &loaded.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// Writes to standard output. A reader that has gone away (`cloakroom --help | head`) is no fault.
fn print(text: &str) -> ExitCode {
    match write!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(exit::IO),
        _ => ExitCode::SUCCESS,
    }
}

/// Binds and runs the daemon, and turns how it ended into the exit code.
async fn run(
    config: Config,
    shutdown: CancellationToken,
    passwords: watch::Receiver<Option<Password>>,
    panics: Arc<AtomicU64>,
) -> ExitCode {
    let bound = match cloakroom::bind(&config) {
        Ok(bound) => bound,
        Err(error) => {
            error!(error = %Chain(&error), "cannot listen");
            return ExitCode::from(exit::IO);
        }
    };
    match cloakroom::run(config, bound, shutdown.cancelled_owned(), passwords, panics).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ RunError::Store(_)) => {
            error!(error = %Chain(&error), "cannot serve");
            ExitCode::from(exit::IO)
        }
        Err(error @ RunError::Task(..)) => {
            error!(error = %Chain(&error), "cannot go on");
            ExitCode::from(exit::SOFTWARE)
        }
    }
}
