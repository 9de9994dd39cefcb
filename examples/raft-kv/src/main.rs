//! A replicated key-value store on openraft and Highwater.
//!
//! It shows how to build a Raft node on Highwater's log. `cargo run -- demo` starts three nodes and
//! shows their functions step by step. `README.md` is the guide.
//!
//! - `types`, `protocol`: the replicated commands, and the protocol between clients and nodes.
//! - `node`: a node. Copy this module into your own program.
//! - `client`: a client that repeats requests until a node replies.
//! - `cluster`, `demo`: nodes as child processes, and the demonstration.
//! - `chaos`: the test of the whole store.

mod chaos;
mod client;
mod cluster;
mod demo;
mod node;
mod protocol;
mod random;
mod types;

use std::{error::Error, io, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{chaos::ChaosOptions, client::Client, node::NodeOptions, protocol::Request};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Start three nodes and show their functions step by step
    Demo,
    /// Start three nodes, inject faults, and check the replies that the clients got
    Chaos(ChaosOptions),
    /// Run one node
    Node(NodeOptions),
    /// Send one request to a node, for example: send 127.0.0.1:7001 GET river
    Send {
        /// The node's address for clients
        node: String,
        /// The words of the request
        #[arg(trailing_var_arg = true, required = true)]
        request: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    match run(Arguments::parse().command).await {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            2.into()
        }
    }
}

async fn run(command: CliCommand) -> Result<u8, Box<dyn Error>> {
    match command {
        CliCommand::Demo => demo::run().await?,
        CliCommand::Chaos(options) => return Ok(chaos::run(options).await?),
        CliCommand::Node(options) => node::run(options).await?,
        CliCommand::Send { node, request } => {
            let request: Request = request.join(" ").parse()?;
            println!(
                "{}",
                Client::new(vec![node], 0).send(&request, Duration::from_secs(10)).await?
            );
        }
    }
    Ok(0)
}
