//! Compiles and runs the examples of `docs/guide/` as doc tests.

macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        $(
            #[doc = include_str!(concat!("../docs/guide/", $path))]
            struct $name;
        )*
    };
}

pages! {
    GettingStarted: "getting-started.md",
    ChoosingACall: "choosing-a-call.md",
    Recovery: "recovery.md",
    Consumers: "consumers.md",
    Slots: "slots.md",
    Retention: "retention.md",
    Stores: "stores.md",
    Operating: "operating.md",
    Deploying: "deploying.md",
    Stalls: "stalls.md",
    TestingYourStore: "testing-your-store.md",
    CrashTests: "crash_tests.md",
    WhatHappensIf: "what-happens-if.md",
}
