#include "ladder/ladder_reference.h"

#include "ladder/ladder_advice.h"

static void append_questions(struct buf *text)
{
    buf_append_text(text, "| flag | question | answers |\n| --- | --- | --- |\n");
    for (int q = 0; q < LADDER_QUESTION_COUNT; q++) {
        const struct ladder_question *question = &ladder_questions[q];
        buf_format(text, "| `--%s` | %s | ", question->name, question->text);
        for (int i = 0; question->answers[i]; i++)
            buf_format(text, "%s`%s`: %s", i > 0 ? "; " : "", question->answers[i], question->meanings[i]);
        buf_append_text(text, " |\n");
    }
}

static void append_condition(struct buf *text, const struct ladder_rule *rule)
{
    bool any = true;
    for (int q = 0; q < LADDER_QUESTION_COUNT; q++) {
        if (!rule->answers[q])
            continue;
        buf_format(text, "%s%s is ", any ? "" : " and ", ladder_questions[q].name);
        any = false;
        for (unsigned i = 0, n = 0; ladder_questions[q].answers[i]; i++)
            if (rule->answers[q] & (1u << i))
                buf_format(text, "%s%s", n++ > 0 ? " or " : "", ladder_questions[q].answers[i]);
    }
    if (any)
        buf_append_text(text, "always");
}

static void append_rules(struct buf *text)
{
    static const char *const effects[] = {[LADDER_RAISE] = "at least %s",
                                          [LADDER_KEEP_WARM] = "from %s on: one replica always runs",
                                          [LADDER_WARN] = "from %s on: a warning"};
    buf_append_text(text, "| when | then | because |\n| --- | --- | --- |\n");
    for (const struct ladder_rule *rule = ladder_rules; rule->reason; rule++) {
        buf_append_text(text, "| ");
        append_condition(text, rule);
        buf_append_text(text, " | ");
        struct str effect = str_from(effects[rule->effect]);
        const char *gap = strstr(effects[rule->effect], "%s");
        buf_append(text, effect.data, (size_t)(gap - effect.data));
        buf_append_text(text, ladder_level_names[rule->level]);
        buf_append_text(text, gap + 2);
        buf_format(text, " | %s |\n", rule->reason);
    }
}

void ladder_reference_advice(struct buf *ret_text)
{
    buf_append_text(
        ret_text,
        "# Which level a model needs\n\n"
        "`bulkhead advise` asks the questions below, or takes the answers as flags or from a YAML file (`-f`), and names a\n"
        "level of isolation, the reasons, what it costs on this host, and the YAML to apply. This page is generated from\n"
        "the tables that it uses (`src/ladder/ladder_advice.c`). What each level contains: [isolation-levels.md]"
        "(isolation-levels.md).\n\n"
        "The cost is a start just now, and what `bulkhead bench isolation` measured here before: its bulkhead-isolation.json in\n"
        "the current folder, or the file named with `--measured`. A report of another host is not used.\n\n"
        "## Questions\n\n");
    append_questions(ret_text);
    buf_append_text(
        ret_text,
        "\n## Rules\n\n"
        "The level is the highest that any rule demands, and never below the tenant's `isolation.minimum` (`--minimum`, or\n"
        "read from the server with `--tenant`). No rule lowers a level: a tight latency budget or a host that lacks something\n"
        "brings a warning, never a weaker wall.\n\n");
    append_rules(ret_text);
    buf_append_text(
        ret_text,
        "\n## Where the host lacks the level\n\n"
        "Each level is tested as `bulkhead doctor` does. Where the level is not available, the advice says so with the reason,\n"
        "and names the next stronger level that is. Where there is none, the advice stays as it is and the command ends with\n"
        "1: `apply` would refuse the model, and a weaker level is not proposed.\n\n"
        "A file for `-f`:\n\n"
        "```yaml\ncritical: patient\nregulated: locked\nneighbours: trusted\nlatency: normal\nburst: no\nlegacy: no\n```\n");
}

static void append_parts(struct buf *text, uint32_t parts)
{
    for (uint32_t i = 0, n = 0; i < LADDER_PARTS; i++)
        if (parts & (1u << i))
            buf_format(text, "%s`%s`", n++ > 0 ? ", " : "", ladder_part_names[i]);
}

void ladder_reference_walls(struct buf *ret_text)
{
    for (int level = LADDER_SHARED; level < LADDER_LEVEL_COUNT; level++) {
        buf_format(ret_text, "%s### %s\n\n| | verdict | by what | where it holds |\n| --- | --- | --- | --- |\n",
                   level > LADDER_SHARED ? "\n" : "", ladder_level_names[level]);
        enum ladder_topic last = LADDER_TOPIC_COUNT;
        for (const struct ladder_row *row = ladder_rows; row->by; row++) {
            if (row->level != (enum ladder_level)level)
                continue;
            buf_format(ret_text, "| %s | %s | %s | ", row->topic == last ? "" : ladder_topic_names[row->topic],
                       ladder_verdict_names[row->verdict], row->by);
            if (row->needs)
                append_parts(ret_text, row->needs);
            else
                buf_append_text(ret_text, row->topic == last ? "otherwise" : "always");
            buf_append_text(ret_text, " |\n");
            last = row->topic;
        }
    }
}
