//! The faults, and their repair.

use std::{collections::BTreeMap, ffi::OsString, io, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    chaos::proxy::{Condition, Link},
    client::{Client, send_once},
    cluster::{NodeProcess, field, wait_for},
    protocol::Request,
    random::Random,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// Kill one node (SIGKILL), mostly the leader
    KillOne,
    /// Kill all nodes at the same time (SIGKILL)
    KillAll,
    /// Stop one node for a while (SIGSTOP), mostly the leader
    Pause,
    /// Make the disk of one node hang for a while, mostly that of the leader
    Freeze,
    /// Cut links: all links of a node, the links from a node, or the links between two nodes
    Partition,
    /// Slow down all links
    Delay,
    /// Transfer the leadership
    Transfer,
    /// Let every node take a snapshot and purge its log
    Compact,
    /// Remove a node from the cluster and add it again
    Membership,
}

impl Fault {
    pub(crate) const ALL: [Fault; 9] = [
        Fault::KillOne,
        Fault::KillAll,
        Fault::Pause,
        Fault::Freeze,
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
    /// The longest time from a frozen disk to a leader with another disk.
    pub(crate) longest_change: Duration,
    /// The number of acknowledged writes.
    pub(crate) progress: watch::Receiver<u64>,
}

/// The acknowledged writes between two faults, so that each fault can lose an acknowledged write.
const WRITES_BETWEEN: u64 = 30;

/// The time in which another node leads after the leader's disk was frozen. It takes 0.4 s to see
/// the stall, and an election of 0.6 to 1.2 s if the transfer fails. The rest is for slow machines.
const NEW_LEADER_WITHIN: Duration = Duration::from_secs(15);

impl Nemesis {
    /// Injects one fault after the other until `deadline`, and repairs each.
    ///
    /// The order is random, but all of `faults` are used before one is repeated. Each fault waits
    /// for progress of the cluster. The first `count_min` faults may wait until `last_deadline`.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be repaired.
    pub(crate) async fn inject_faults(
        &mut self,
        faults: &[Fault],
        count_min: u32,
        deadline: Instant,
        last_deadline: Instant,
    ) -> io::Result<()> {
        let mut round = Vec::new();
        for number in 0.. {
            let until = if number < count_min { last_deadline } else { deadline };
            if Instant::now() >= until || !self.wait_for_progress(until).await {
                break;
            }
            if round.is_empty() {
                round = faults.to_vec();
            }
            let fault = round.swap_remove(self.random.below(round.len() as u64) as usize);
            *self.counts.entry(fault).or_default() += 1;
            tracing::info!(?fault, "injecting a fault");
            self.inject(fault).await?;
            // Long enough for an election, or not quite.
            let most_ms = self.random.pick(&[400, 3_000]);
            self.sleep_random(100, most_ms).await;
            self.thaw().await;
            self.repair()?;
            if fault == Fault::Membership {
                let _ = self.restore_membership(Duration::from_secs(5)).await;
            }
            self.check_alive()?;
            self.sleep_random(200, 1_000).await;
        }
        Ok(())
    }

    /// Waits until the cluster has acknowledged [`WRITES_BETWEEN`] more writes. Returns `false` at
    /// `until`.
    async fn wait_for_progress(&mut self, until: Instant) -> bool {
        let wanted = *self.progress.borrow_and_update() + WRITES_BETWEEN;
        let more = self.progress.wait_for(|count| *count >= wanted);
        matches!(timeout_at(until, more).await, Ok(Ok(_)))
    }

    async fn sleep_random(&mut self, least_ms: u64, most_ms: u64) {
        let ms = least_ms + self.random.below(most_ms - least_ms);
        sleep(Duration::from_millis(ms)).await;
    }

    async fn inject(&mut self, fault: Fault) -> io::Result<()> {
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
            Fault::Freeze => self.freeze().await?,
            Fault::Partition => self.partition().await,
            Fault::Delay => {
                for link in &self.links {
                    let by = Duration::from_millis(self.random.below(120));
                    link.set(Condition::Slow(by));
                }
            }
            Fault::Transfer => {
                let to = self.random.pick(&self.nodes.iter().map(|n| n.id).collect::<Vec<_>>());
                self.send(Request::Lead(to)).await;
            }
            Fault::Compact => self.compact().await,
            Fault::Membership => {
                let out = self.random.below(self.nodes.len() as u64) as usize;
                let ids = self.nodes.iter().map(|node| node.id);
                let rest = ids.enumerate().filter(|(at, _)| *at != out).map(|(_, id)| id);
                self.send(Request::Members(rest.collect())).await;
            }
        }
        Ok(())
    }

    /// Freezes the disk of a node. If it is the leader's, waits until another node leads.
    ///
    /// # Errors
    ///
    /// If no other node becomes the leader in time.
    async fn freeze(&mut self) -> io::Result<()> {
        let victim = self.victim().await;
        let (id, address) = (self.nodes[victim].id, self.nodes[victim].addresses.clients.clone());
        let frozen = send_once(&address, &Request::Freeze, Duration::from_secs(2)).await;
        tracing::info!(id, ?frozen, "froze the disk");
        let began = Instant::now();
        let others: Vec<_> =
            self.addresses().into_iter().filter(|other| *other != address).collect();
        let is_led_by_another = |status: &str| {
            let leader = field(status, "leader");
            leader != "-" && leader != id.to_string()
        };
        let count = others.len();
        let led = wait_for(&others, count, NEW_LEADER_WITHIN, is_led_by_another).await;
        led.map_err(|_| {
            let reason = format!("no other node leads although the disk of node {id} hangs");
            io::Error::new(io::ErrorKind::TimedOut, reason)
        })?;
        self.longest_change = self.longest_change.max(began.elapsed());
        tracing::info!(id, elapsed = ?began.elapsed(), "another node leads");
        Ok(())
    }

    /// Lets all disks work again. A node that was frozen continues without a restart.
    async fn thaw(&self) {
        for address in self.addresses() {
            let _ = send_once(&address, &Request::Thaw, Duration::from_secs(2)).await;
        }
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
        for request in [Request::Snapshot, Request::Purge] {
            for node in &self.nodes {
                let time_limit = Duration::from_secs(1);
                let _ = send_once(&node.addresses.clients, &request, time_limit).await;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Returns the index of the leader in 2 of 3 cases, or else of a random node.
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

    async fn send(&mut self, request: Request) {
        let mut client = Client::new(self.addresses(), 0);
        // The request may fail because of an earlier fault.
        if let Err(error) = client.send(&request, Duration::from_secs(2)).await {
            tracing::info!(%request, %error, "the request failed");
        }
    }

    /// Opens all links, and resumes or restarts all nodes.
    pub(crate) fn repair(&mut self) -> io::Result<()> {
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

    /// Makes all nodes voters.
    pub(crate) async fn restore_membership(&mut self, within: Duration) -> io::Result<()> {
        let mut client = Client::new(self.addresses(), 0);
        let deadline = Instant::now() + within;
        let ids: Vec<u64> = self.nodes.iter().map(|node| node.id).collect();
        for node in &self.nodes {
            let learn = Request::Learn(node.id, node.addresses.clone());
            client.send(&learn, deadline.saturating_duration_since(Instant::now())).await?;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        client.send(&Request::Members(ids), left).await?;
        Ok(())
    }

    /// Checks that no node has ended by itself, which it does after a failure.
    pub(crate) fn check_alive(&mut self) -> io::Result<()> {
        for node in &mut self.nodes {
            if let Some(status) = node.ended() {
                let message = format!("node {} ended by itself: {status}", node.id);
                return Err(io::Error::other(message));
            }
        }
        Ok(())
    }
}
