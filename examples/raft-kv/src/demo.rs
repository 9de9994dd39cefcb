//! Three nodes as processes, and what they do, step by step.

use std::{ffi::OsString, io, path::Path, time::Duration};

use tokio::time::timeout;

use crate::{
    client::{Client, ask_node},
    cluster::{NodeProcess, field, free_nodes, wait_for},
    protocol::{Ask, Reply},
    types::{Addresses, Change},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// The demonstration takes some ten seconds.
const LIFETIME: Duration = Duration::from_secs(180);

pub(crate) async fn run() -> io::Result<()> {
    let name = format!("raft-kv-demo-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let shown = tokio::select! {
        shown = timeout(LIFETIME, show(&directory)) => shown.map_err(io::Error::from)?,
        stop = tokio::signal::ctrl_c() => stop,
    };
    if shown.is_ok() {
        std::fs::remove_dir_all(&directory)?;
    }
    shown
}

struct Demo {
    nodes: Vec<NodeProcess>,
    client: Client,
    step: u32,
}

async fn show(directory: &Path) -> io::Result<()> {
    let mut demo = Demo::begin(directory).await?;
    demo.write_and_read().await?;
    demo.kill_the_leader().await?;
    demo.compact().await?;
    demo.change_members().await?;
    demo.hand_over().await?;
    demo.restart_all().await?;
    println!("That was it. The nodes end, and their data is removed.");
    Ok(())
}

impl Demo {
    fn say(&mut self, what: &str) {
        self.step += 1;
        println!("{:2}. {what}", self.step);
    }

    async fn begin(directory: &Path) -> io::Result<Demo> {
        let arguments = [format!("--lifetime-seconds={}", LIFETIME.as_secs() + 20)];
        let arguments: Vec<OsString> = arguments.map(OsString::from).into();
        let mut nodes: Vec<NodeProcess> = (1..)
            .zip(free_nodes(4)?)
            .map(|(id, node)| NodeProcess::new(id, node, directory, arguments.clone()))
            .collect();
        let members: Vec<(u64, Addresses)> =
            nodes[..3].iter().map(|node| (node.id, node.addresses.clone())).collect();
        nodes[..3].iter_mut().try_for_each(|node| node.start(&[]))?;
        let addresses = members.iter().map(|(_, node)| node.clients.clone()).collect();
        let mut demo = Demo { nodes, client: Client::new(addresses, 1), step: 0 };
        demo.say(&format!(
            "Three nodes run, each in a process of its own, in {}",
            directory.display()
        ));
        for (id, node) in &members {
            println!("      node {id}: clients at {}", node.clients);
        }
        demo.done(&Ask::Initialize(members)).await?;
        let leader = demo.leader().await?;
        demo.say(&format!("They are a cluster; node {leader} leads"));
        Ok(demo)
    }

    async fn write_and_read(&mut self) -> io::Result<()> {
        self.say(
            "A put, a read, and two compare-and-sets, of which the second finds another value",
        );
        self.put("river", "Rhine").await?;
        self.expect("river", "Rhine").await?;
        let cas = |value: &str| Change::Cas {
            key: "river".into(),
            expected: Some("Rhine".into()),
            value: value.into(),
        };
        self.reply(cas("Elbe"), Reply::Ok).await?;
        self.reply(cas("Oder"), Reply::Mismatch(Some("Elbe".into()))).await?;
        self.say("The same read, linearizable, through each node");
        for index in 0..3 {
            self.client.turn_to(index);
            self.expect("river", "Elbe").await?;
        }
        Ok(())
    }

    async fn kill_the_leader(&mut self) -> io::Result<()> {
        let leader = self.leader().await?;
        self.say(&format!("SIGKILL of node {leader}, the leader; the other two go on"));
        let at = (leader - 1) as usize;
        self.nodes[at].kill();
        self.put("city", "Basel").await?;
        self.expect("river", "Elbe").await?;
        let next = self.leader().await?;
        self.say(&format!("Node {next} leads now. Node {leader} starts again and catches up"));
        self.nodes[at].start(&[])?;
        self.wait(3, |status| field(status, "keys") == "2").await
    }

    async fn compact(&mut self) -> io::Result<()> {
        self.say(
            "A thousand writes, then a snapshot on each node, and a log without what is in it",
        );
        for number in 0..1_000 {
            self.put("counter", &number.to_string()).await?;
        }
        for node in &self.nodes[..3] {
            self.done_by(&node.addresses.clients, &Ask::Snapshot).await?;
        }
        let number = |status: &str, name: &str| field(status, name).parse::<u64>().unwrap_or(0);
        self.wait(3, |status| number(status, "snapshot") > 500).await?;
        for node in &self.nodes[..3] {
            self.done_by(&node.addresses.clients, &Ask::Purge).await?;
        }
        self.wait(3, |status| number(status, "purged") > 500).await
    }

    async fn change_members(&mut self) -> io::Result<()> {
        self.say("Node 4 starts, learns from the leader's snapshot, and takes the place of node 1");
        self.nodes[3].start(&[])?;
        let newcomer = self.nodes[3].addresses.clone();
        self.done(&Ask::Learn(4, newcomer)).await?;
        self.done(&Ask::Members(vec![2, 3, 4])).await?;
        self.wait(3, |status| field(status, "voters") == "2,3,4").await?;
        self.nodes[0].kill();
        let addresses = self.nodes[1..].iter().map(|node| node.addresses.clients.clone());
        self.client = Client::new(addresses.collect(), 2);
        self.client.turn_to(2);
        self.expect("counter", "999").await
    }

    async fn hand_over(&mut self) -> io::Result<()> {
        let leader = self.leader().await?;
        let next = if leader == 4 { 2 } else { 4 };
        self.say(&format!("Node {leader} hands the leadership to node {next}"));
        self.done(&Ask::Lead(next)).await?;
        let next = next.to_string();
        self.wait(3, |status| field(status, "leader") == next).await
    }

    async fn restart_all(&mut self) -> io::Result<()> {
        self.say("SIGKILL of all nodes at once; they start again, and everything is there");
        self.put("last", "word").await?;
        self.nodes.iter_mut().for_each(NodeProcess::signal_kill);
        self.nodes.iter_mut().for_each(NodeProcess::reap);
        self.nodes[1..].iter_mut().try_for_each(|node| node.start(&[]))?;
        for (key, value) in
            [("river", "Elbe"), ("city", "Basel"), ("counter", "999"), ("last", "word")]
        {
            self.expect(key, value).await?;
        }
        Ok(())
    }

    async fn put(&mut self, key: &str, value: &str) -> io::Result<()> {
        self.reply(Change::Put { key: key.into(), value: value.into() }, Reply::Ok).await
    }

    async fn reply(&mut self, change: Change, expected: Reply) -> io::Result<()> {
        let reply = self.client.write(change, PATIENCE).await?;
        check(&reply, &expected)
    }

    async fn expect(&mut self, key: &str, value: &str) -> io::Result<()> {
        let reply = self.client.get(key, PATIENCE).await?;
        check(&reply, &Reply::Value(value.into()))?;
        println!("      {key} = {value}");
        Ok(())
    }

    async fn done(&mut self, ask: &Ask) -> io::Result<()> {
        check(&self.client.ask(ask, PATIENCE).await?, &Reply::Ok)
    }

    async fn done_by(&self, address: &str, ask: &Ask) -> io::Result<()> {
        check(&ask_node(address, ask, PATIENCE).await?, &Reply::Ok)
    }

    async fn leader(&self) -> io::Result<u64> {
        let leads = |status: &str| field(status, "state") == "Leader";
        let leaders = wait_for(&self.addresses(), 1, PATIENCE, leads).await?;
        field(&leaders[0], "id").parse().map_err(io::Error::other)
    }

    async fn wait(&self, count: usize, is_it: impl Fn(&str) -> bool) -> io::Result<()> {
        for status in wait_for(&self.addresses(), count, PATIENCE, is_it).await? {
            println!("      {status}");
        }
        Ok(())
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.addresses.clients.clone()).collect()
    }
}

fn check(reply: &Reply, expected: &Reply) -> io::Result<()> {
    match reply == expected {
        true => Ok(()),
        false => Err(io::Error::other(format!("{reply} instead of {expected}"))),
    }
}
