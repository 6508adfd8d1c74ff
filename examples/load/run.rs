//! The measurement: one thread that waits for whichever comes first, a reply or the time of the next request.

use std::collections::VecDeque;
use std::error::Error;
use std::fs;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::connection::{Connection, Progress};
use crate::histogram::Histogram;
use crate::options::RunOptions;
use crate::pace::Pace;
use crate::template::{Shape, Template};

struct Link {
    connection: Connection,
    /// When the batch on its way was due.
    due: Instant,
    size: u64,
}

struct Run {
    steps: Vec<Template>,
    shape: Shape,
    pipeline: usize,
    pace: Pace,
    links: Vec<Link>,
    idle: VecDeque<usize>,
    epoll: rustix::fd::OwnedFd,
    /// What is answered before is not measured.
    measured_from: Instant,
    last: Instant,
    /// Measured or not.
    answered: u64,
    histogram: Histogram,
}

/// Sends all requests; the result as a line of JSON.
///
/// # Errors
/// If the server cannot be reached, closes a connection, is silent for long, or gives a reply that is not the right one.
pub(crate) fn run(options: &RunOptions) -> Result<String, Box<dyn Error>> {
    // Wake up when asked to, not up to 50 µs later. Where this is not allowed, a fixed rate is a little less even.
    let _ = fs::write("/proc/self/timerslack_ns", "1");
    let mut run = Run::open(options)?;
    let (start, before) = (Instant::now(), cpu_times());
    run.until_all_is_answered()?;
    // One thread makes the load: a share near 1 says that it was the limit.
    let took = start.elapsed().as_nanos() as f64;
    let after = cpu_times();
    let [busy, waited] = [0, 1].map(|at| (after[at] - before[at]) as f64 / took);
    let seconds = run.last.saturating_duration_since(run.measured_from).as_secs_f64();
    let count = run.histogram.total();
    Ok(format!(
        "{{\"requests\": {count}, \"answered\": {}, \"seconds\": {seconds:.4}, \"rps\": {:.1}, {}, \
         \"client_share\": {busy:.3}, \"client_waits\": {waited:.4}}}",
        run.answered,
        count as f64 / seconds,
        run.histogram.json(),
    ))
}

impl Run {
    fn open(options: &RunOptions) -> Result<Self, Box<dyn Error>> {
        let steps = options.steps.iter().map(|step| Template::parse(step)).collect::<Result<Vec<_>, _>>()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let now = Instant::now();
        let mut links = Vec::new();
        for number in 0..options.connections {
            let connection = Connection::open(options.port)?;
            epoll::add(&epoll, connection.socket(), epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
            links.push(Link { connection, due: now, size: 0 });
        }
        let start = Instant::now();
        Ok(Self {
            steps,
            shape: options.shape.shape(),
            pipeline: if options.rate.is_some() { 1 } else { options.pipeline },
            pace: Pace::new(options, start, first_stamp()),
            idle: (0..links.len()).collect(),
            links,
            epoll,
            measured_from: start + Duration::from_secs_f64(options.warm_up),
            last: start,
            answered: 0,
            histogram: Histogram::new(),
        })
    }

    fn until_all_is_answered(&mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(self.links.len());
        loop {
            let wait = self.send_what_is_due()?;
            if wait.is_none() && self.idle.len() == self.links.len() {
                return Ok(());
            }
            let timeout =
                wait.map(|wait| Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() });
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let number = event.data.u64() as usize;
                if self.links[number].connection.read(&self.steps, &self.shape)? == Progress::Finished {
                    self.finish(number);
                }
            }
        }
    }

    /// Gives idle connections the requests that are due. How long until the next one, if a connection is free for it.
    fn send_what_is_due(&mut self) -> io::Result<Option<Duration>> {
        while let Some(number) = self.idle.front().copied() {
            let now = Instant::now();
            let Some(due) = self.pace.due(now) else { return Ok(None) };
            if due > now {
                return Ok(Some(due - now));
            }
            self.idle.pop_front();
            let mut batch = Vec::with_capacity(self.pipeline);
            while batch.len() < self.pipeline && self.pace.due(now).is_some_and(|due| due <= now) {
                batch.push(self.pace.take());
                if self.pipeline == 1 {
                    break;
                }
            }
            let link = &mut self.links[number];
            (link.due, link.size) = (due, batch.len() as u64);
            link.connection.start(batch.into_iter(), &self.steps, &self.shape)?;
        }
        Ok(None)
    }

    fn finish(&mut self, number: usize) {
        let now = Instant::now();
        let link = &self.links[number];
        self.answered += link.size;
        if now >= self.measured_from {
            let nanos = u64::try_from(now.saturating_duration_since(link.due).as_nanos()).unwrap_or(u64::MAX);
            (0..link.size).for_each(|_| self.histogram.record(nanos));
            self.last = now;
        }
        self.idle.push_back(number);
    }
}

/// Runs that follow each other write different values: milliseconds are far more than requests.
#[expect(clippy::disallowed_methods, reason = "no expiry hangs on it: it only has to differ from run to run")]
fn first_stamp() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(1) % 900_000_000_000
}

/// For how long this thread, which is the whole process, had a processor and waited for one, in nanoseconds.
fn cpu_times() -> [u64; 2] {
    let stat = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let mut fields = stat.split(' ').map(|field| field.parse().unwrap_or(0));
    [0; 2].map(|nothing| fields.next().unwrap_or(nothing))
}
