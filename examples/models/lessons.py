"""What the model and its voices learn: prose, and pairs of what a user says and what the answer is."""
import collections
import random
import re

ASK = ("What is {}?", "Tell me about {}.", "What do you think of {}?", "Speak to me of {}.", "What do you know of {}?")
SENTENCE = re.compile(r"\S.*?(?<!Mr)(?<!Mrs)(?<!Dr)(?<!St)[.!?](?=\s|$)")
ANSWER_MIN, ANSWER_MAX, QUESTION_MAX = 20, 320, 160  # characters


def spoken(paragraph):
    """What is said in it, without 'said he'. Empty if it is not one speech."""
    if not paragraph.startswith('"') or paragraph.count('"') % 2:
        return ""
    text = " ".join(part.strip() for part in paragraph.split('"')[1::2])
    return text[:1].upper() + text[1:]


def short(text, most=ANSWER_MAX):
    """As many whole sentences from its start as fit, at least one."""
    kept = ""
    for sentence in SENTENCE.findall(text):
        if kept and len(kept) + len(sentence) > most:
            break
        kept = (kept + " " + sentence).strip()
    return kept if ANSWER_MIN <= len(kept) <= most + 100 else ""


class Topics:
    """Finds the word that a text is about: its rarest that is not rare in all texts together."""

    def __init__(self, texts, least=12, most=900):
        counts = collections.Counter(word for text in texts for word in re.findall(r"[a-z]{4,}", text))
        self.counts = {word: n for word, n in counts.items() if least <= n <= most and not word.endswith(("ly", "ing", "ed"))}

    def of(self, text):
        words = [word for word in re.findall(r"\b[a-z]{4,}\b", text) if word in self.counts]
        return min(words, key=lambda word: (self.counts[word], word)) if words else None


def talks(novels):
    """(speech, reply) wherever one speech follows another."""
    pairs = []
    for paragraphs in novels:
        for first, second in zip(paragraphs, paragraphs[1:]):
            question, answer = spoken(first)[-QUESTION_MAX * 3:], short(spoken(second))
            sentences = SENTENCE.findall(question)
            if sentences and answer and len(sentences[-1]) <= QUESTION_MAX:
                pairs.append((sentences[-1], answer))
    return pairs


def about(texts, topics, rng):
    """(question about it, text) for each text."""
    return [(rng.choice(ASK).format(word), text) for text in texts for word in (topics.of(text),) if word]


def replies(questions, texts, topics, rng):
    """(question, a text with the question's topic in it, or any)."""
    having = collections.defaultdict(list)
    for text in texts:
        for word in set(re.findall(r"\b[a-z]{4,}\b", text)):
            having[word].append(text)
    return [(question, rng.choice(having.get(topics.of(question)) or texts)) for question in questions]


def verses(bible, rng):
    """One to three verses of one chapter after another."""
    texts, at = [], 0
    while at < len(bible):
        chapter, text = bible[at]
        at += 1
        for _ in range(rng.randrange(3)):
            if at < len(bible) and bible[at][0] == chapter and len(text) + len(bible[at][1]) < ANSWER_MAX:
                text += " " + bible[at][1]
                at += 1
        if ANSWER_MIN <= len(text) <= ANSWER_MAX:
            texts.append(text)
    return texts


def lessons(novels, bible, devil, seed):
    """prose: list of long texts; talk, scribe, cynic: pairs of (user, answer)."""
    rng = random.Random(seed)
    sentences = [short(p, 220) for novel in novels for p in novel if not p.startswith('"')]
    topics = Topics([" ".join(novel) for novel in novels] + [text for _, text in bible])
    talk = talks(novels)
    questions = [question for question, _ in talk]
    scripture = verses(bible, rng)
    definitions = [(word, short(text)) for word, text in devil]
    definitions = [(word, text) for word, text in definitions if text]
    chapters = collections.OrderedDict()
    for chapter, text in bible:
        chapters.setdefault(chapter, []).append(text)
    return {
        "prose": ["\n\n".join(novel) for novel in novels],
        "scripture": [" ".join(texts) for texts in chapters.values()],
        "sarcasm": ["\n\n".join("%s: %s" % entry for entry in devil)],
        "talk": talk + about([s for s in sentences if s], topics, rng),
        "scribe": about(scripture, topics, rng) + replies(questions, scripture, topics, rng),
        "cynic": [(ask.format(word), text) for word, text in definitions for ask in ASK] +
                 replies(questions, [text for _, text in definitions], topics, rng),
    }
