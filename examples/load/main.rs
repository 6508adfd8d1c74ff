//! Load for the benchmarks: requests of one or several commands over many connections, as fast as the server answers or at
//! a fixed rate; and how soon a deletion on one server shows on another. Knows nothing about who serves: every peer gets
//! the same bytes. Prints one line of JSON.
//!
//! redis-benchmark sends one command over and over, with values that do not change, and has no fixed rate: it measures
//! neither what a request of a web application costs, nor writes that a server may not recognise as already done, nor
//! latency at half of the load.
#![expect(clippy::print_stdout, reason = "the result is the program's output")]

mod connection;
mod histogram;
mod logout;
mod options;
mod pace;
mod run;
mod template;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Command, Options};

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Logout(options) => logout::run(&options),
    };
    match result {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{{\"error\": {:?}}}", error.to_string());
            ExitCode::FAILURE
        }
    }
}
