/* Bounds on what llama.cpp makes of tenants' grammars, schemas, templates and conversations. C++, in
 * libbulkhead-llama.so only; what lies behind llama_common.h.
 *
 * Its code for these recurses over what it is given, and takes as long and as much memory as that asks for: a
 * grammar of a hundred bytes can ask for more than there is. So three things are done. What it recurses over is
 * looked at first, by functions here that do not recurse that deep. What it allocates goes through our operator new
 * (a shared library's own comes before the C++ library's), which looks at a clock and throws when a llama_bound on
 * the same thread has come to its end. And the two loops that could go on without allocating (the search for left
 * recursion, classes of characters) are counted out beforehand.
 *
 * The same operator new looks at the stack: a template's macro that calls itself allocates each time. Its expressions
 * are walked without, so they are looked at first. What remains is a template that makes JSON of a value which contains
 * itself, or thousands of others one within the other: that ends the worker, as there is no way into the library's code
 * for it.
 *
 * Everything here throws std::exception, whose text is for people. */
#ifndef BULKHEAD_ENGINE_LLAMA_BOUND_H
#define BULKHEAD_ENGINE_LLAMA_BOUND_H

#include "llama.h"

#include <cstdint>
#include <string>

/* Processor time of this thread for a template's opening, which tries it on some conversations, for a conversation's
 * template, a grammar, and one token's way through a grammar. */
constexpr uint64_t LLAMA_OPEN_NS = UINT64_C(2000) * 1000 * 1000;
constexpr uint64_t LLAMA_TEMPLATE_NS = UINT64_C(200) * 1000 * 1000;
constexpr uint64_t LLAMA_GRAMMAR_NS = UINT64_C(100) * 1000 * 1000;

/* What a bound's end is called to people. */
constexpr const char *LLAMA_BOUND_TEXT = "it takes too long, too much memory, or is nested too deeply; make it simpler";

/* While one lives, this thread's operator new throws std::bad_alloc once `ns` of its processor time are over, more
 * than 64 MiB beyond what there was at first are in use, or the stack is 2 MiB deeper than here; and again soon after,
 * where that is caught and it goes on. One at a time per thread. */
class llama_bound
{
  public:
    explicit llama_bound(uint64_t ns);
    ~llama_bound();
    llama_bound(const llama_bound &) = delete;
    llama_bound &operator=(const llama_bound &) = delete;
};

/* Whether one on this thread threw since this was asked last: the library may have made another error of it. */
bool llama_bound_reached();

/* JSON as the gateway writes it (no spaces): nesting, names, references and patterns that the library survives. */
void llama_json_check(const std::string &json);
/* A chat template in Jinja, within a bound. */
void llama_template_check(const char *text);
/* A GBNF grammar: makes it once within a bound of LLAMA_GRAMMAR_NS, so that making it again ends as soon. */
void llama_grammar_check(const llama_vocab *vocab, const std::string &grammar);

#endif
