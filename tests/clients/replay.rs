//! Commands as clients that cannot be installed here send them, each reply compared with a real Redis's.
//!
//! A file begins with what it replays (`# name:`, `# version:`, `# config:`); then come sections as of the tables in
//! `tests/cases`, which go on from each other. A line after `! ` is refused; any other error would be a mistake in the file.

use super::app::About;
use super::server::Server;
use crate::support::client::Client;
use crate::support::compare::{MODES, Pair, Section, Step, parse};
use crate::support::process::show;
use crate::support::redis::RedisServer;

/// Replays a file against a server, in each way to send.
pub fn replay(text: &str, server: &Server) -> About {
    let sections = parse(&text.replace("\n! ", "\n"));
    let redis = RedisServer::start();
    check_errors(text, &sections, &redis);
    let pair = Pair { theirs: redis.port(), ours: server.port() };
    let mut differences = 0;
    for mode in MODES {
        for port in [pair.theirs, pair.ours] {
            assert_eq!(Client::connect(port).ask("FLUSHALL"), "+OK\\r\\n");
        }
        for section in &sections {
            for difference in pair.differences(&section.steps, mode) {
                show(&format!("{} ({mode:?}): {difference}", section.name));
                differences += 1;
            }
        }
    }
    assert_eq!(differences, 0, "replies differ from Redis's as shown above");
    let field = |name: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(&format!("# {name}: ")));
        lines.collect::<Vec<_>>().join("\n")
    };
    let names: Vec<&str> = sections.iter().map(|section| section.name.as_str()).collect();
    About::new(&field("name"), &field("version"), &names, &field("config"))
}

/// Whether Redis refuses just what the file says it does. A line that Redis refuses by mistake would compare as equal.
fn check_errors(text: &str, sections: &[Section], redis: &RedisServer) {
    let refused: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("! ")).collect();
    for section in sections {
        let mut client = redis.client();
        for step in &section.steps {
            let Step::Send { args, text, .. } = step else { continue };
            let is_error = client.call(&args.iter().map(Vec::as_slice).collect::<Vec<_>>()).starts_with(b"-");
            assert_eq!(is_error, refused.contains(&text.as_str()), "{text}: refused by Redis?");
        }
    }
}
