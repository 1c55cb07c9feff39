"""Writes the data of the suite `intents`: support messages and where each belongs, made from our own sentences.

`python -m gateway_evals.intents FOLDER [SEED]`. The sentences and the words put into them are split before anything is
drawn, so that no held-out message shares either with one that was trained on.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

SEED = 20260801

INSTRUCTION = (
    "Route the message to billing, delivery, returns, login, cancel, bug, upgrade or privacy. "
    'Answer in JSON, like {"intent": "bug"}.'
)
"""Stands before every message, in training as in the suite."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the messages of one file are made of."""

    sentences: Mapping[str, Sequence[str]]
    """By intent."""
    words: Mapping[str, Sequence[str]]
    """By slot."""
    openers: Sequence[str]
    closers: Sequence[str]


TRAINED = Part(
    sentences={
        "billing": [
            "I was charged twice in {month}",
            "there is a payment of {amount} on my card that I do not know",
            "please send me the invoice for {month}",
            "my bill is {amount} higher than last time",
            "why did you take {amount} from my account?",
            "the tax on my invoice is wrong",
            "my card was declined, although there is money on it",
            "which company name stands on the receipt?",
            "I paid {amount}, but the invoice still says unpaid",
            "can I pay the bill by bank transfer?",
        ],
        "delivery": [
            "where is the {item} I ordered {days} ago?",
            "my parcel has not arrived",
            "the courier left the {item} with a neighbour",
            "tracking has shown the same place for {days}",
            "when will my {item} be shipped?",
            "can you send the package to my office in {city}?",
            "the driver could not find my door",
            "nobody brought the {item} today, as was promised",
            "how long does shipping to {city} take?",
            "I would like to change the address of my parcel",
        ],
        "returns": [
            "I want to send the {item} back",
            "how do I return a {item}?",
            "the {item} does not fit, I would like my money back",
            "when do I get the refund for the {item}?",
            "please exchange the {item} for a smaller one",
            "I need a label to return my order",
            "the {item} came broken, please take it back",
            "can I still give the {item} back after {days}?",
            "my refund of {amount} has not come yet",
            "this is the wrong colour, I want to swap it",
        ],
        "login": [
            "I forgot my password",
            "I cannot sign in any more",
            "the code for signing in never reaches my phone",
            "my account is locked after three attempts",
            "the link to reset my password has expired",
            "it says that my user name is unknown",
            "how do I change my password?",
            "I lost the phone I use to log in",
            "sign-in asks for a code that I never got",
            "it does not accept my password since {days}",
        ],
        "cancel": [
            "I want to end my subscription",
            "please cancel my {plan} plan",
            "how do I stop my membership?",
            "do not renew my contract in {month}",
            "I no longer need the {plan} plan, end it",
            "what is the notice period for my contract?",
            "I would like to quit at the end of {month}",
            "stop my subscription before it renews",
            "cancel everything, I am going to another company",
            "I want to leave and not pay for another year",
        ],
        "bug": [
            "the app crashes when I open the {page}",
            "the {page} stays blank",
            "I get error {number} on the {page}",
            "the button on the {page} does nothing",
            "since the update the {page} is broken",
            "the app freezes after {days}",
            "pictures do not load on the {page}",
            "the search shows error {number}",
            "your website is very slow and then stops working",
            "the {page} shows strange signs instead of letters",
        ],
        "upgrade": [
            "I would like to move to the {plan} plan",
            "what does the {plan} plan cost?",
            "can I add {number} more seats to our plan?",
            "we need more storage than our plan has",
            "what more do I get with {plan}?",
            "how do I switch to a larger plan?",
            "is there a discount if we buy the {plan} plan for a year?",
            "our team grows, we want a bigger package",
            "I want to buy the {plan} option as well",
            "please raise our limit to {number} users",
        ],
        "privacy": [
            "delete all the data you have about me",
            "which personal data do you store?",
            "please send me a copy of my data",
            "who do you share my address with?",
            "I do not agree to the use of my data for advertising",
            "remove my name from your records",
            "how long do you keep my personal details?",
            "take my e-mail address off your newsletter list",
            "I object to being tracked on the {page}",
            "where are my personal details stored?",
        ],
    },
    words={
        "item": ["jacket", "lamp", "kettle", "desk", "camera", "backpack", "carpet", "phone case"],
        "month": ["January", "March", "May", "July", "October"],
        "amount": ["12 euros", "40 dollars", "99 euros", "18 pounds", "250 dollars"],
        "days": ["two days", "four days", "a week", "ten days"],
        "city": ["Lyon", "Porto", "Leeds", "Graz"],
        "plan": ["Basic", "Team", "Gold", "Family"],
        "page": ["start page", "order list", "map", "settings page", "basket"],
        "number": ["12", "404", "30", "77"],
    },
    openers=["", "", "", "Hello, ", "Hi there, ", "Good morning, ", "Excuse me, ", "Quick question: ", "Sorry, "],
    closers=["", "", "", "", " Thanks.", " Please help.", " Can you look into it?", " Kind regards"],
)

HELD_OUT = Part(
    sentences={
        "billing": [
            "your invoice lists {amount} that I never agreed to",
            "I see two charges on my credit card for {month}",
            "could I get a receipt for the payment in {month}?",
            "the amount on my bill is not what we agreed",
            "is it possible to pay by invoice and not by card?",
            "my account was debited {amount} without a reason",
            "please correct the invoice for {month}",
            "is my payment for {month} still open?",
            "I was billed although I paid already",
            "which payments have you taken since {month}?",
        ],
        "delivery": [
            "my {item} should have been delivered {days} ago",
            "has my {item} left the warehouse yet?",
            "the tracking number does not show where my parcel is",
            "please deliver the {item} to {city} and not to my home",
            "the courier says he delivered the package, but nothing is here",
            "my package is late",
            "when does the {item} get here?",
            "can I collect my parcel in {city} myself?",
            "the {item} has been on its way for {days}",
            "the shipment seems to be lost",
        ],
        "returns": [
            "I don't like the {item}, can I return it?",
            "the {item} is damaged, I want a refund",
            "where do I send a {item} that I want to give back?",
            "I returned the {item} {days} ago and got no money back",
            "please exchange my {item}, it is too large",
            "may I return the {item} after {days}?",
            "I got the wrong {item}, please take it back",
            "I need a return label for the {item}",
            "has my refund been paid out yet?",
            "I want to swap the {item} for another one",
        ],
        "login": [
            "my password is not accepted",
            "I can't get into my account, it says locked",
            "please reset my password",
            "I have a new phone and get no sign-in code",
            "logging in fails with my old user name",
            "the sign-in page rejects my password",
            "I forgot the user name of my account",
            "the reset link for my password does not work",
            "I have been locked out since {days}",
            "it never sends me the code to sign in",
        ],
        "cancel": [
            "I wish to terminate my {plan} subscription",
            "please end my contract in {month}",
            "cancel my membership, I do not use it",
            "how can I get out of the {plan} contract?",
            "my subscription must not renew in {month}",
            "I want to stop paying for {plan} and end it",
            "how do I cancel?",
            "I am leaving, please close my contract",
            "quit my {plan} membership as of {month}",
            "I do not wish to renew for another year",
        ],
        "bug": [
            "the app closes by itself on the {page}",
            "your {page} does not load, only error {number}",
            "after the last update nothing works on the {page}",
            "when I press save, the {page} hangs",
            "the {page} is broken in my browser",
            "the app stops working after I open the {page}",
            "I see error {number} all the time",
            "the {page} stays empty",
            "the buttons on the {page} do not react",
            "the app shows a crash report on the {page}",
        ],
        "upgrade": [
            "how much more is the {plan} plan than ours?",
            "we want {number} additional users in our plan",
            "I am interested in a bigger plan, which is there?",
            "please switch us from the small plan to {plan}",
            "can we get more storage with the {plan} plan?",
            "I'd like to buy the {plan} plan",
            "what would {number} more seats cost?",
            "does {plan} include more storage?",
            "our plan is too small for {number} users",
            "I want to go up to {plan}",
        ],
        "privacy": [
            "I want you to erase my personal data",
            "tell me what data about me you have stored",
            "do you sell my personal data to advertising partners?",
            "please stop using my e-mail address for advertising",
            "I ask for an export of my personal data",
            "what personal details of mine are kept?",
            "please delete my records",
            "I want my data removed",
            "with whom is my personal data shared?",
            "I do not want to be tracked",
        ],
    },
    words={
        "item": ["sofa", "bicycle", "blender", "sweater", "mirror", "headset"],
        "month": ["February", "April", "September", "December"],
        "amount": ["35 euros", "7 dollars", "120 pounds"],
        "days": ["three days", "nine days", "two weeks"],
        "city": ["Bergen", "Turin", "Ghent"],
        "plan": ["Silver", "Business", "Plus"],
        "page": ["profile page", "photo page", "calendar", "price list"],
        "number": ["15", "502", "60"],
    },
    openers=["", "", "", "Dear team, ", "Hey, ", "Good evening, ", "One more thing: "],
    closers=["", "", "", " Thank you!", " What should I do?", " Best wishes"],
)

INTENTS = tuple(TRAINED.sentences)


def messages(part: Part, per_intent: int, rng: random.Random) -> list[tuple[str, str]]:
    """(message, intent), every intent equally often, every sentence in turn, no message twice, in random order."""
    rows: list[tuple[str, str]] = []
    for intent, sentences in part.sentences.items():
        seen: set[str] = set()
        turns = cycle(rng.sample(list(sentences), len(sentences)))
        while len(seen) < per_intent:
            sentence = next(turns).format_map({slot: rng.choice(list(words)) for slot, words in part.words.items()})
            opener = rng.choice(list(part.openers))
            # Without a greeting before it, a sentence begins as sentences do.
            text = opener + (sentence if opener else sentence[0].upper() + sentence[1:])
            text += ("" if text[-1] in ".?!" else ".") + rng.choice(list(part.closers))
            seen.add(text)
        rows += [(text, intent) for text in sorted(seen)]
    rng.shuffle(rows)
    return rows


def write(folder: Path, seed: int = SEED) -> list[Path]:
    """`train.jsonl`, `validation.jsonl` (rows of chat messages) and `heldout.jsonl` (`message`, `intent`)."""
    rng = random.Random(seed)  # noqa: S311 (no secret)
    made = messages(TRAINED, 64, rng)
    validation, train = made[:32], made[32:]
    # Each sentence once: samples that share one would not be independent, as a paired test needs them.
    heldout = messages(HELD_OUT, 10, rng)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _write(folder / "train.jsonl", [_chat(*row) for row in train]),
        _write(folder / "validation.jsonl", [_chat(*row) for row in validation]),
        _write(folder / "heldout.jsonl", [{"message": text, "intent": intent} for text, intent in heldout]),
    ]


def _chat(text: str, intent: str) -> dict[str, object]:
    return {
        "messages": [
            {"role": "user", "content": f"{INSTRUCTION}\n{text}"},
            {"role": "assistant", "content": json.dumps({"intent": intent})},
        ]
    }


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
