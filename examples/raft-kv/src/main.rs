//! A replicated key-value store on openraft and Highwater. `README.md` is the guide to it.
//!
//! - `types`, `protocol`: what is replicated, and what clients and nodes say to each other.
//! - `node`: a node. This is what to copy into a program of one's own.
//! - `client`: a client that asks until it is answered.
//! - `cluster`, `demo`: nodes as processes, and a demonstration.
//! - `chaos`: the test of it all.

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

use crate::{chaos::ChaosOptions, client::Client, node::NodeOptions, protocol::Ask};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Start three nodes and show what they do
    Demo,
    /// Start three nodes, let everything go wrong, and judge what their clients were told
    Chaos(ChaosOptions),
    /// Run one node
    Node(NodeOptions),
    /// Send one request, for instance: ask 127.0.0.1:7001 GET river
    Ask {
        /// A node's address for clients
        node: String,
        #[arg(trailing_var_arg = true, required = true)]
        request: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    match run(Arguments::parse().what).await {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error}");
            2.into()
        }
    }
}

async fn run(what: What) -> Result<u8, Box<dyn Error>> {
    match what {
        What::Demo => demo::run().await?,
        What::Chaos(options) => return Ok(chaos::run(options).await?),
        What::Node(options) => node::run(options).await?,
        What::Ask { node, request } => {
            let ask: Ask = request.join(" ").parse()?;
            println!("{}", Client::new(vec![node], 0).ask(&ask, Duration::from_secs(10)).await?);
        }
    }
    Ok(0)
}
