//! What goes wrong, and how it is put right again.

use std::{collections::BTreeMap, ffi::OsString, io, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    chaos::proxy::{Condition, Link},
    client::Client,
    cluster::{NodeProcess, field, wait_for},
    protocol::Ask,
    random::Random,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL of a node, mostly of the leader
    KillOne,
    /// SIGKILL of all nodes at one moment
    KillAll,
    /// SIGSTOP of a node, mostly of the leader
    Pause,
    /// Links are cut: those of a node, those to it, or those between two
    Partition,
    /// Links are slow
    Delay,
    /// The leader is told to hand over
    Transfer,
    /// Every node makes a snapshot and purges its log
    Compact,
    /// A node is removed from the cluster, and added again
    Membership,
}

impl Fault {
    pub(crate) const ALL: [Fault; 8] = [
        Fault::KillOne,
        Fault::KillAll,
        Fault::Pause,
        Fault::Partition,
        Fault::Delay,
        Fault::Transfer,
        Fault::Compact,
        Fault::Membership,
    ];
}

pub(crate) struct Nemesis {
    pub(crate) nodes: Vec<NodeProcess>,
    pub(crate) links: Vec<Link>,
    pub(crate) random: Random,
    pub(crate) power_cuts: bool,
    pub(crate) counts: BTreeMap<Fault, u32>,
}

impl Nemesis {
    /// One fault after the other until `deadline`, each of `faults` before any comes again. Ends with
    /// everything put right, or with why it can't be.
    pub(crate) async fn rage(&mut self, faults: &[Fault], deadline: Instant) -> io::Result<()> {
        let mut round = Vec::new();
        while Instant::now() < deadline {
            if round.is_empty() {
                round = faults.to_vec();
            }
            let fault = round.swap_remove(self.random.below(round.len() as u64) as usize);
            *self.counts.entry(fault).or_default() += 1;
            tracing::info!(?fault, "something goes wrong");
            self.strike(fault).await?;
            // Long enough for another leader, or just not.
            let most_ms = self.random.pick(&[400, 3_000]);
            self.pause(100, most_ms).await;
            self.put_right()?;
            if fault == Fault::Membership {
                let _ = self.full_membership(Duration::from_secs(5)).await;
            }
            self.check_alive()?;
            self.pause(200, 1_000).await;
        }
        Ok(())
    }

    async fn pause(&mut self, least_ms: u64, most_ms: u64) {
        let ms = least_ms + self.random.below(most_ms - least_ms);
        sleep(Duration::from_millis(ms)).await;
    }

    async fn strike(&mut self, fault: Fault) -> io::Result<()> {
        match fault {
            Fault::KillOne => {
                let victim = self.victim().await;
                self.nodes[victim].kill();
            }
            Fault::KillAll => {
                self.nodes.iter_mut().for_each(NodeProcess::signal_kill);
                self.nodes.iter_mut().for_each(NodeProcess::reap);
            }
            Fault::Pause => {
                let victim = self.victim().await;
                self.nodes[victim].pause()?;
            }
            Fault::Partition => self.partition().await,
            Fault::Delay => {
                for link in &self.links {
                    let by = Duration::from_millis(self.random.below(120));
                    link.set(Condition::Slow(by));
                }
            }
            Fault::Transfer => {
                let to = self.random.pick(&self.nodes.iter().map(|n| n.id).collect::<Vec<_>>());
                self.ask(Ask::Lead(to)).await;
            }
            Fault::Compact => self.compact().await,
            Fault::Membership => {
                let out = self.random.below(self.nodes.len() as u64) as usize;
                let ids = self.nodes.iter().map(|node| node.id);
                let rest = ids.enumerate().filter(|(at, _)| *at != out).map(|(_, id)| id);
                self.ask(Ask::Members(rest.collect())).await;
            }
        }
        Ok(())
    }

    async fn partition(&mut self) {
        let victim = self.victim().await;
        let victim = self.nodes[victim].id;
        let other = self.random.pick(&self.nodes.iter().map(|n| n.id).collect::<Vec<_>>());
        let kind = self.random.below(3);
        for link in &self.links {
            let is_cut = match kind {
                0 => link.from == victim || link.to == victim,
                1 => link.from == victim,
                _ => [(link.from, link.to), (link.to, link.from)].contains(&(victim, other)),
            };
            if is_cut {
                link.set(Condition::Cut);
            }
        }
    }

    async fn compact(&mut self) {
        for ask in [Ask::Snapshot, Ask::Purge] {
            for node in &self.nodes {
                let patience = Duration::from_secs(1);
                let _ = crate::client::ask_node(&node.addresses.clients, &ask, patience).await;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The leader in two of three cases, if there is one.
    async fn victim(&mut self) -> usize {
        let any = self.random.below(self.nodes.len() as u64) as usize;
        if self.random.below(3) == 0 {
            return any;
        }
        let is_leader = |status: &str| field(status, "state") == "Leader";
        let leaders = wait_for(&self.addresses(), 1, Duration::ZERO, is_leader).await;
        let leader = leaders.ok().and_then(|leaders| field(&leaders[0], "id").parse::<u64>().ok());
        self.nodes.iter().position(|node| Some(node.id) == leader).unwrap_or(any)
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.addresses.clients.clone()).collect()
    }

    async fn ask(&mut self, ask: Ask) {
        let mut client = Client::new(self.addresses(), 0);
        // It may fail, as anything may here.
        if let Err(error) = client.ask(&ask, Duration::from_secs(2)).await {
            tracing::info!(%ask, %error, "not done");
        }
    }

    /// Ends what is wrong with processes and links.
    pub(crate) fn put_right(&mut self) -> io::Result<()> {
        for link in &self.links {
            link.set(Condition::Open);
        }
        for node in &mut self.nodes {
            node.resume()?;
            let mut arguments: Vec<OsString> = Vec::new();
            if self.power_cuts {
                let seed = self.random.next() >> 1;
                arguments.extend(["--power-cuts", "--power-seed"].map(OsString::from));
                arguments.push(seed.to_string().into());
            }
            node.start(&arguments)?;
        }
        Ok(())
    }

    /// All nodes vote.
    pub(crate) async fn full_membership(&mut self, within: Duration) -> io::Result<()> {
        let mut client = Client::new(self.addresses(), 0);
        let deadline = Instant::now() + within;
        let ids: Vec<u64> = self.nodes.iter().map(|node| node.id).collect();
        for node in &self.nodes {
            let learn = Ask::Learn(node.id, node.addresses.clone());
            client.ask(&learn, deadline.saturating_duration_since(Instant::now())).await?;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        client.ask(&Ask::Members(ids), left).await?;
        Ok(())
    }

    /// A node that has ended and wasn't killed has found something that it can't go on with.
    pub(crate) fn check_alive(&mut self) -> io::Result<()> {
        for node in &mut self.nodes {
            if let Some(status) = node.ended() {
                let what = format!("node {} ended by itself: {status}", node.id);
                return Err(io::Error::other(what));
            }
        }
        Ok(())
    }
}
