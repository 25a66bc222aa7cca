#include "tools/stories/plots.h"

#define WENT "[went|walked|hurried|strolled]"
#define SAID "[said|answered|replied]"

static void prepare_number_left(struct story *s);
static void prepare_finder(struct story *s);
static void prepare_forgetful(struct story *s);
static void prepare_hiding(struct story *s);

const struct plot plot_openings[] = {
    {.variables = "ew",
     .steps = {"[On {e}[| morning| afternoon| evening], {w}|It was {e}. {^w}|{^w} that {e}]"
               "[.|, and {w.alt}.]"},
     .facts = {{'e', "On what day did the story begin?", "On {e}", "it all began on {e}"},
               {'w', "What was the weather like?", "{^w}", "{w} that day"}}},
    {.variables = "e",
     .steps = {"[It was [early|late] on {e}[| morning| afternoon].|"
               "It began on a [quiet|busy|cold|warm] {e}[| in [spring|summer|autumn|winter]].]"},
     .facts = {{'e', "On what day did the story begin?", "On {e}", "it all began on {e}"}}},
    {.variables = "",
     .steps = {"[Long ago|Many years ago|Not long ago], [a strange|a funny|a small|an odd] thing "
               "happened in a [quiet|busy|pretty|sleepy|windy] [village|town|valley] "
               "[by the sea|in the hills|near the border|far from here]."}},
    {.variables = "", .steps = {NULL}},
};
const size_t plot_openings_count = sizeof plot_openings / sizeof plot_openings[0];

const struct plot plot_introductions[] = {
    {.variables = "j",
     .steps = {"[{A} was {j.a}, and [every day|all week long|from morning till night] {A.he} "
               "{j.alt}|There was {j.a} [named|called] {A}, who {j.alt}|"
               "As {j.a}, {A} {j.alt} [every day|all week long|from morning till night]]."},
     .facts = {{'j', "What was {A}'s work?", "{A} was {j.a}", "{A} was {j.a}"}}},
    {.variables = "z",
     .steps =
         {"{A} lived [alone|with {A.his} {~relation}] in [a small|a tall|a narrow|{~colour.a}] "
          "house "
          "[near|not far from|just behind] {z.alt}."},
     .facts = {{'z', "What did {A} live close to?", "{^z.alt}", "{A} lived close to {z.alt}"}}},
    {.variables = "", .steps = {NULL}},
};
const size_t plot_introductions_count = sizeof plot_introductions / sizeof plot_introductions[0];

const char plot_filler[] =
    "[[Two|Three|Four|Five|Many] [{~colour}|noisy|sleepy|fat] {~bird} were [sitting|quarrelling|"
    "resting] on the [roof|fence|wall|gate].|"
    "[The air|The wind|Everything] smelled of {~smell}.|"
    "[Somewhere|Far away|Nearby|Outside], {~sound}.|"
    "The clock [struck|showed] {~number}.|"
    "{A} [hummed|whistled|sang] a [little|quiet|merry|slow] [song|tune|march]"
    "[| about {~animal.a}| about the [sea|moon|summer|stars]].|"
    "{A} was wearing {~colour.a} [hat|coat|scarf|shirt] and [new|old|muddy|{~colour}] "
    "[shoes|boots|socks].|"
    "{A}'s {~relation} [waved|came by|looked in] and [told a joke|talked about the {~animal}|"
    "asked for {~food}|went on].|"
    "In a [shop window|cart|corner] [nearby|close by] lay {~colour.a} {~thing}, {~colour.a} "
    "{~thing} "
    "and [some|three|four|a few] {~food}.|"
    "[An old|A young|A tall|A tired] {~job} went past with [a basket of|a bag of|some] {~food} "
    "and {~colour.a} "
    "{~thing}.]";

const struct plot plots[] = {
    {.name = "lost",
     .variables = "Bocstu",
     .prepare = prepare_finder,
     .steps =
         {"[{A} had {c.a} {o}[, and {A.he} [loved it|was proud of it|used it every day]|]|"
          "The {c} {o} was {A}'s [favourite thing|greatest treasure]|"
          "{A}'s {~relation} had given {A.him} {c.a} {o}].",
          "[{^A.he} [always|usually] kept it|It had its place|Its place was] {s}.",
          "%[One [morning|day|evening]|But then, one [morning|day|evening],] "
          "[it was gone|{A.he} could not find it|it had disappeared].",
          "`[Have you seen my {o}|Do you know where my {o} is]?` {A} asked {B}. "
          "[`No, but I will help you,`|`I am sorry, no,`|`I am afraid not,`] " SAID
          " {B}[.|, and they began to search.]",
          "%[First they|Together they] [looked|searched] {u}, but [found only "
          "[dust|an old newspaper|a sleepy spider|some [buttons|nails|coins]]|it was not there].",
          "[At last|An hour later|In the end], {F} [found [it|the {c} {o}] {t}.|looked {t}, and "
          "there it was.|cried, `Here it is, {t}!`]",
          "[{A}'s {~relation} had put it there [by mistake|while cleaning|to keep it safe]."
          "|Nobody knew how it had come there.|A [magpie|puppy|little child] had carried it "
          "there.|]",
          "[{A} was [very happy|glad|relieved|so pleased that {A.he} danced].|{A} [thanked|"
          "hugged] {B}[| and made {B.him} a cup of [tea|cocoa]].|From then on, {A} took better "
          "care of [it|the {c} {o}].]"},
     .facts = {{'t', "Where was the {o} found?", "{^t}", "the {o} was found {t}"},
               {'s', "Where did {A} keep the {o}?", "{^s}", "{A} used to keep the {o} {s}"},
               {'c', "Which {o} did {A} lose?", "The {c} one", "{A} had lost the {c} {o}"},
               {'F', "Who found the {o}?", "{F} did", "it was {F} who found the {o}"},
               {'A', "Whose {o} was it?", "It was {A}'s", "the {c} {o} belonged to {A}"},
               {'o', "What did {A} lose?", "{^o.a}", "the thing that {A} had lost was {o.a}"}},
     .key = 'o'},
    {.name = "gift",
     .variables = "Bxocqknmsd",
     .steps =
         {"{B}'s birthday was on {d}[, and|. That was why] {A} wanted to [give {B.him} "
          "something nice|buy {B.him} a present|surprise {B.him}].",
          "[So {A.he}|{A}] " WENT " {x.to}[| early in the day| with a full purse].",
          "%[There {A.he} saw|A [kind|friendly|cheerful|tired] [woman|man] was selling|"
          "On a table lay] [{c.a} {o} and {k.a} {q}|{k.a} {q} and {c.a} {o}].",
          "[The {o} cost {n} coins, and the {q} cost {m}.|The {q} was {m} coins, the {o} {n}.]",
          "[After some thought, {A} [bought|chose]|{A} [bought|chose]|`That is just right "
          "for {B},` thought {A}, and {A.he} took] the {c} {o}.",
          "%On {d}, [{A} gave {B} the [present|little parcel]|{B} opened the [parcel|"
          "present]]. `[Thank you|How lovely|What a surprise]!` [said|cried|laughed] {B}."
          "[ `I have always wanted {c.a} {o}.`| `{^c.a} {o}!`|]",
          "{B} [put|kept] the {o} {s}[, where everyone could see it|, so that nobody would "
          "break it|]."},
     .facts = {{'o', "What did {B} get?", "{^o.a}", "{B} got {o.a} for {B.his} birthday"},
               {'n', "How much did the {o} cost?", "{^n} coins", "the {o} had cost {n} coins"},
               {'d', "When was {B}'s birthday?", "On {d}", "{B}'s birthday was on {d}"},
               {'x', "Where did {A} buy the {o}?", "{^x}", "{A} had bought the {o} {x}"},
               {'A', "Who gave {B} the {o}?", "{A} did", "{B} got the {o} from {A}"},
               {'s', "Where did {B} keep the {o}?", "{^s}", "{B} kept the {o} {s}"},
               {'c', "Which {o} did {A} choose?", "The {c} one", "{A} had chosen the {c} {o}"}},
     .key = 'o'},
    {.name = "loan",
     .variables = "BCocxyd",
     .steps = {"{A} had {c.a} {o}, and {B} [asked to borrow it|needed it for a [day|week|"
               "journey]|wanted to have it for a while].",
               "`[Of course|Gladly|Yes, take it],` said {A}. `[But|Only] bring it back on {d}.`",
               "{B} took the {o} {x.to}, [and there {B.he} met|where {B.he} met] {C}.",
               "%`[What a [fine|nice|beautiful] {o}|That is just what I need]!` said {C}. {B} "
               "[could not say no|was very kind|nodded], and [so {C} got it|{B.he} gave it to "
               "{C.him}].",
               "[{C}|Soon {C}] [carried|took] it {y.to}[ and used it there|].",
               "%On {d}, {A} [wanted the {o} back|asked for the {o}]. `Where is [it|my {c} {o}]?` "
               "{A.he} asked. "
               "`{C} [has|took] it,` said {B}. `It is {y}.`",
               "[{A} laughed and said, `Then {C} must need it more than I do.`|{A} was not angry, "
               "for {C} was [a good friend|always careful].|{A} [shook {A.his} head|sighed], "
               "[but said nothing|and {B} felt sorry].]"},
     .facts = {{'C', "Who had the {o} in the end?", "{C} had it", "{C} had the {o} in the end"},
               {'y', "Where was the {o} in the end?", "{^y}", "the {o} was {y} in the end"},
               {'A', "Who owned the {o}?", "{A} did", "the {o} belonged to {A}"},
               {'B', "Who borrowed the {o} from {A}?", "{B} did", "{B} had borrowed the {o}"},
               {'x', "Where did {B} meet {C}?", "{^x}", "{B} and {C} had met {x}"},
               {'d', "When did {A} want the {o} back?", "On {d}",
                "{A} wanted the {o} back on "
                "{d}"},
               {'c', "Which {o} was it?", "The {c} one", "it was the {c} {o}"}},
     .key = 'o'},
    {.name = "count",
     .variables = "Bxfs",
     .prepare = prepare_number_left,
     .steps = {"{A} [got|bought|was given] {n} {f} {x}.",
               "[{^A.he} put them in [a basket|{A.his} bag|a bucket] and started for home.|The "
               "basket was [heavy|full], but {A} carried it [alone|with a smile|on {A.his} "
               "head].]",
               "%On the way {A.he} met {B}, who [was hungry|had no {f}|looked sad|loved {f}].",
               "`[Please take|Take|You can have] {m} [{f}|of my {f}],` said {A}. `[That is kind|"
               "Thank you]!` {B} " SAID ".",
               "[So {A} had {r} left.|After that, there were {r} {f} in the basket.|{A} went home "
               "with the rest.|]",
               "%{B} made a [cake|soup|pie|salad] with {B.his} {m} {f}[ that evening|].",
               "[At home|In the evening], {A} [put|hid|stored] the other {r} {f} {s}."},
     .facts = {{'n', "How many {f} did {A} have at first?", "{^n}", "{A} had {n} {f} at first"},
               {'m', "How many {f} did {A} give away?", "{^m}", "{A} gave away {m} {f}"},
               {'r', "How many {f} did {A} have left?", "{^r}", "{A} had {r} {f} left"},
               {'x', "Where did {A} get the {f}?", "{^x}", "{A} got the {f} {x}"},
               {'f', "What did {A} share?", "{^f}", "{A} had shared {f} with {B}"},
               {'B', "Who got {f} from {A}?", "{B} did", "{A} had given {f} to {B}"},
               {'s', "Where did {A} put the {f}?", "{^s}", "{A} put the {f} {s}"}},
     .key = 'f'},
    {.name = "swap",
     .variables = "Bxocqks",
     .steps = {"{A} had {c.a} {o}, and {B} had {k.a} {q}.",
               "[{A} [liked|admired] the {q}, and {B} liked the {o}|Each [liked|wanted] what the "
               "other had]. `[Shall we trade|Do you want to swap]?` asked {A}. `[Yes, gladly|Why "
               "not|With pleasure],` " SAID " {B}.",
               "%[So they|The next day they|They] met {x} and [swapped|traded].",
               "[Now|From then on,] {A} had the {q}, and {B} had the {o}.",
               "%{A} put {A.his} {k} {q} {s}, and {B} [showed the {c} {o} to everyone|went home "
               "with the {c} {o}|wrapped the {c} {o} in paper].",
               "[Both were [happy|pleased|content].|{B} thought it was a good trade.|]"},
     .facts = {{'q', "What did {A} have in the end?", "The {q}", "{A} ended up with the {q}"},
               {'o', "What did {B} have in the end?", "The {o}", "{B} ended up with the {o}"},
               {'A', "Who owned the {o} at first?", "{A} did", "the {o} once belonged to {A}"},
               {'B', "Who got the {o}?", "{B} did", "{B} was the one who got the {o}"},
               {'x', "Where did they trade?", "{^x}", "they had made their trade {x}"},
               {'s', "Where did {A} put the {q}?", "{^s}", "{A} put the {q} {s}"},
               {'k', "Which {q} was it?", "The {k} one", "the {q} was the {k} one"}},
     .key = 'o'},
    {.name = "pet",
     .variables = "BpaiOysf",
     .steps =
         {"{A} had {i.a} {p} [named|called] {a}.",
          "{a} [liked to sleep|slept|had a bed of straw] {s}[ and was afraid of [storms|"
          "strangers]|].",
          "%[One night|One day|Then, one morning], [a [loud|terrible] [bang|crash|noise] "
          "frightened {a}|someone left the gate open], and {a} ran away.",
          "{A} [searched everywhere|asked everyone|called and called] {y}, but nobody there had "
          "seen {i.a} {p}.",
          "%[Then {B} came running.|{B} came to help.] `I [saw|heard] {a} {O}!` [called|"
          "cried|said] {B}.",
          "[They|Both of them] ran {O.to}, and there {a} was, eating {f}.",
          "{A} [hugged the {p}|laughed with joy|was happy again] and [thanked {B}|took {a} "
          "home][. `Never run away again!` said {A}.|.]"},
     .facts = {{'a', "What was the {p} called?", "{a}", "the {p} was called {a}"},
               {'p', "What kind of animal was {a}?", "{^p.a}", "{a} was {p.a}"},
               {'i', "What did {a} look like?", "{a} was {i}", "{a} was {i}"},
               {'O', "Where was {a} found?", "{^O}", "{a} was found {O}"},
               {'B', "Who helped {A}?", "{B} did", "{B} had helped {A}"},
               {'s', "Where did {a} sleep?", "{^s}", "{a} used to sleep {s}"},
               {'f', "What was {a} eating?", "{^f}", "{a} had been eating {f}"},
               {'A', "Whose {p} was it?", "It was {A}'s", "{a} belonged to {A}"}},
     .key = 'p'},
    {.name = "journey",
     .variables = "BXYyvoc",
     .steps = {"{A} [wanted|had] to [go|travel] from {X} to {Y}[, where {B} was waiting| to visit "
               "{B}].",
               "{^A.he} [travelled|went] {v}[, because it was [cheap|a long way|the best way]|].",
               "In {A.his} bag {A.he} had {c.a} {o}, [a present for {B}|which was meant for {B}].",
               "%[Halfway|On the way], {A.he} stopped {y} and [rested|ate some [bread|cheese|"
               "soup]|asked for the way|slept for an hour].",
               "[In the evening|Late at night|At noon|Just before dark], {A.he} [arrived|was there "
               "at last]. `How did you [come|travel]?` asked {B}. `{^v},` said {A}.",
               "%`[Look, I brought you|This is for you:] {c.a} {o}!` {B} [was very happy|smiled|"
               "hugged {A}], and [together they|they] [had supper|talked for hours|walked through "
               "{Y}]."},
     .facts = {{'v', "How did {A} travel?", "{^v}", "{A} had travelled {v}"},
               {'y', "Where did {A} stop on the way?", "{^y}", "{A} had stopped {y}"},
               {'Y', "Where did {A} go?", "To {Y}", "{A} had gone to {Y}"},
               {'X', "Where did {A} come from?", "From {X}", "{A} had come from {X}"},
               {'B', "Who got the {o}?", "{B} did", "the {o} was a present for {B}"},
               {'A', "Who brought the {o}?", "{A} did", "the {o} was a present from {A}"},
               {'o', "What did {A} bring?", "{^o.a}", "{A} had brought {o.a}"},
               {'c', "Which {o} was it?", "The {c} one", "{A} had brought the {c} {o}"}},
     .key = 'o'},
    {.name = "three",
     .variables = "BCDo123x",
     .prepare = prepare_forgetful,
     .steps =
         {"[{A}, {B} and {C} each had {o.a}|Three friends, {A}, {B} and {C}, each had {o.a}].",
          "[{A}'s was {1}, {B}'s was {2}, and {C}'s was {3}.|{A} had the {1} one, {B} the {2} "
          "one, and {C} the {3} one.]",
          "%They [played|sang|stayed|told stories] {x} [until dark|until supper|for "
          "hours]. [When they went home|In the end], one {o} was [left behind|forgotten].",
          "%{D} [saw it|found it] {x} [the next morning|the same night]. `[Whose is this|Who has "
          "forgotten this] {4} {o}?` asked "
          "{D}.",
          "`[It must be|That is|I think it is] {F}'s,` [said everyone|they told {D.him}]. [So {D} "
          "brought it to {F}|And {F} came back for it|{F} had to [laugh|blush]]."},
     .facts = {{'F', "Who forgot the {o}?", "{F} did", "it was {F} who forgot the {o}"},
               {'1', "Which {o} was {A}'s?", "The {1} one", "{A} had the {1} {o}"},
               {'2', "Which {o} was {B}'s?", "The {2} one", "{B} had the {2} {o}"},
               {'3', "Which {o} was {C}'s?", "The {3} one", "{C} had the {3} {o}"},
               {'D', "Who found the {o}?", "{D} did", "the {o} was found by {D}"},
               {'x', "Where was the {o} found?", "{^x}", "the {o} was found {x}"}},
     .key = 'o'},
    {.name = "trade",
     .variables = "Bjbocfn",
     .steps = {"{A} was {j.a}, and {B} was {b.a}.",
               "[One day|Once], {B} [needed {o.a}|came to {A} and asked for {o.a}]. {A} had {c.a} "
               "{o} [to spare|that {A.he} did not need].",
               "%`I have no money,` said {B}, `but I can [give|bring] you {n} {f}.` `[That is "
               "fair|Good|Agreed],` said {A}.",
               "So the {j} got {n} {f}, and the {b} got the {c} {o}.",
               "%[The {f} were [sweet|fresh|very good], and {A} [ate them all|shared them with "
               "{A.his} {~relation}]|{A} cooked the {f} [for supper|the same day]]. [{B} used the "
               "{o} for many years|{B} took the {o} home]."},
     .facts = {{'j', "What was {A}'s work?", "{A} was {j.a}", "{A} was {j.a}"},
               {'b', "What was {B}'s work?", "{B} was {b.a}", "{B} was {b.a}"},
               {'n', "How many {f} did {B} give?", "{^n}", "{B} had paid with {n} {f}"},
               {'f', "What did {B} pay with?", "{^f}", "{B} had paid with {f}"},
               {'o', "What did {B} need?", "{^o.a}", "{B} had needed {o.a}"},
               {'A', "Who got the {f}?", "{A} did", "{A} was the one who got the {f}"},
               {'c', "Which {o} was it?", "The {c} one", "the {o} was the {c} one"}},
     .key = 'o',
     .introduces_itself = true},
    {.name = "picnic",
     .variables = "BCfghOId",
     .steps =
         {"{A}, {B} and {C} [planned|wanted to have] a picnic {O} on {d}.",
          "{A} brought {f}, {B} brought {g}, and {C} brought {h}.",
          "%But [it began to rain|the wind was too cold|there were too many [ants|people|"
          "wasps]|the grass was wet], so they [went|moved|ran] {I.to}.",
          "There they [sat down|unpacked|spread a blanket] and [shared everything|ate "
          "until they were full].",
          "%`[These {f} are|I love these {f}, they are] [delicious|very good],` {B} said to {A}. "
          "`[And|But most of all] I [like|love] your {h}, {C}.`",
          "[Only the {g} that {B} had brought were left over|Soon the {g} that {B} had brought "
          "were "
          "gone]."},
     .facts = {{'f', "What did {A} bring?", "{^f}", "{A} had brought the {f}"},
               {'g', "What did {B} bring?", "{^g}", "{B} had brought the {g}"},
               {'h', "What did {C} bring?", "{^h}", "{C} had brought the {h}"},
               {'A', "Who brought the {f}?", "{A} did", "the {f} came from {A}"},
               {'C', "Who brought the {h}?", "{C} did", "the {h} came from {C}"},
               {'I', "Where did they eat?", "{^I}", "they ate {I} in the end"},
               {'O', "Where had they wanted to go?", "{^O.to}", "they had wanted to go {O.to}"},
               {'d', "When was the picnic?", "On {d}", "the picnic was on {d}"}},
     .key = 'f'},
    {.name = "meeting",
     .variables = "BCxydnoc",
     .steps =
         {"{A} and {B} [agreed|had promised each other] to meet {x} on {d} at {n} o'clock.",
          "On {d}, {A} [was there in time|came a little early|waited and waited]. But {B} did "
          "not come, for {B.he} was [waiting|standing] {y}.",
          "%`Have you seen {B}?` {A} asked {C}. `[Yes, I have|I think so],` said {C}. `{^B.he} "
          "is {y} and has {c.a} {o} with {B.him}.`",
          "{A} [ran|hurried] {y.to}[| as fast as {A.he} could]. `[We|But we] wanted to meet {x} "
          "at {n}!` said {A}.",
          "%[{B} was [very sorry|ashamed]|{B} laughed loudly|`How stupid of me,` said {B}], and "
          "[as a comfort|to make up for it] {A} got the {c} {o}."},
     .facts = {{'x', "Where had they agreed to meet?", "{^x}", "they had agreed to meet {x}"},
               {'y', "Where was {B} waiting?", "{^y}", "{B} was waiting {y}"},
               {'d', "When did they want to meet?", "On {d}", "they wanted to meet on {d}"},
               {'n', "At what time?", "At {n} o'clock", "they wanted to meet at {n} o'clock"},
               {'C', "Who had seen {B}?", "{C} had", "{C} was the one who had seen {B}"},
               {'o', "What did {B} have?", "{^o.a}", "{B} had {o.a}"},
               {'A', "Who got the {o}?", "{A} did", "the {o} went to {A}"}},
     .key = 'o'},
    {.name = "hiding",
     .variables = "BCstun",
     .prepare = prepare_hiding,
     .steps =
         {"{A}, {B} and {C} were playing hide-and-seek[| at home| in the old house| after "
          "school].",
          "{A} closed {A.his} eyes and counted to {n}. {B} hid {s}, and {C} hid {t}.",
          "%[`I am coming!` called {A}.|{A} opened {A.his} eyes.] First {A.he} looked {u}, but "
          "[nobody was there|there was only {~animal.a}].",
          "[Then {A.he}|Soon {A.he}|{A}] [saw a foot|heard someone laugh|heard a sneeze] and "
          "found {F} {5}.",
          "%It took {A} [a long time|half an hour|until supper] to find {G}, [so {G} had won|and "
          "that was how {G} won the game]. `[You are good at this|What a good place],` said "
          "{A}."},
     .facts = {{'s', "Where did {B} hide?", "{^s}", "{B} had hidden {s}"},
               {'t', "Where did {C} hide?", "{^t}", "{C} had hidden {t}"},
               {'F', "Who was found first?", "{F} was", "{F} was found first"},
               {'G', "Who won the game?", "{G} did", "{G} had won the game"},
               {'A', "Who had to search?", "{A} did", "it was {A} who had to search"},
               {'n', "How far did {A} count?", "To {n}", "{A} had counted to {n}"}},
     .key = 'B'},
    {.name = "moved",
     .variables = "BCocstu",
     .steps =
         {"{A} put {A.his} {c} {o} {s} and " WENT " to [work|town|school].",
          "[While {A} was away|Soon after], {B} took it and put it {t}, because [it was in the "
          "way|"
          "it looked nicer there|{B.he} wanted to clean].",
          "%Then {C} came, [needed the {o} for a moment|looked at the {o}], and [put|left] it "
          "{u}.",
          "%When {A} came [back|home], {A.he} looked {s}, where {A.he} had left it, but the {o} "
          "was not there.",
          "`I put it {t},` said {B}. `And I put it {u},` said {C}.",
          "[So {A} [got|took] the {c} {o} from where {C} had left it|And there it was, the {c} {o}"
          "|{A} had to laugh and [got|took] the {c} {o}]."},
     .facts = {{'u', "Where was the {o} in the end?", "{^u}", "the {o} was {u} in the end"},
               {'s', "Where did {A} put the {o}?", "{^s}", "{A} had put the {o} {s}"},
               {'t', "Where did {B} put the {o}?", "{^t}", "{B} had put the {o} {t}"},
               {'C', "Who moved the {o} last?", "{C} did", "{C} was the last to move the {o}"},
               {'B', "Who moved the {o} first?", "{B} did", "{B} was the first to move the {o}"},
               {'A', "Whose {o} was it?", "It was {A}'s", "the {o} belonged to {A}"},
               {'c', "Which {o} was it?", "The {c} one", "it was the {c} {o}"}},
     .key = 'o'},
    {.name = "letter",
     .variables = "BCXjpaocn",
     .steps =
         {"[{A} wrote a letter to {B}|{B} got a letter from {A}]. `Dear {B},` it [said|began]. "
          "`[I am well|All is well here|I miss you]. I work as {j.a} now[| and like it very "
          "much], and I live in {X}.",
          "My {p} {a} [sends greetings|is fat and lazy|has grown a lot]. [I am sending|With "
          "this letter comes] {c.a} {o} for you. [Yours|Your friend], {A}.`",
          "%The letter [took|was on its way for] {n} days.",
          "{B} [read it twice|was very glad] and showed the {c} {o} to {C}. `{A} is {j.a} "
          "now,` {B} [said|told {C.him}], `and lives in {X}.`",
          "%`[And how is {a}|What about {a}, the {p}]?` asked {C}. [They|The two of them] "
          "[laughed|talked about old times]."},
     .facts = {{'j', "What was {A}'s work?", "{A} was {j.a}", "{A} was {j.a}"},
               {'X', "Where did {A} live?", "In {X}", "{A} lived in {X}"},
               {'a', "What was the {p} called?", "{a}", "the {p} was called {a}"},
               {'p', "What kind of animal was {a}?", "{^p.a}", "{a} was {p.a}"},
               {'o', "What came with the letter?", "{^o.a}", "{o.a} came with the letter"},
               {'n', "How long did the letter take?", "{^n} days", "the letter took {n} days"},
               {'A', "Who wrote the letter?", "{A} did", "{A} had written the letter"},
               {'B', "Who got the letter?", "{B} did", "the letter was for {B}"}},
     .key = 'o',
     .introduces_itself = true},
};
const size_t plots_count = sizeof plots / sizeof plots[0];

static void copy(struct story *s, char to, char from) {
    s->variables[(int)to] = s->variables[(int)from];
}

// Of n, m are given away and r kept: at least two each.
static void prepare_number_left(struct story *s) {
    uint32_t n = 5 + story_draw(s, 8), m = 2 + story_draw(s, n - 3);
    s->variables['n'] = (struct value){LIST_NUMBER, (int)n - 1};
    s->variables['m'] = (struct value){LIST_NUMBER, (int)m - 1};
    s->variables['r'] = (struct value){LIST_NUMBER, (int)(n - m) - 1};
}

// F, who finds what A has lost.
static void prepare_finder(struct story *s) {
    copy(s, 'F', story_draw(s, 2) ? 'A' : 'B');
}

// F, who forgot a thing, and its colour 4.
static void prepare_forgetful(struct story *s) {
    uint32_t who = story_draw(s, 3);
    copy(s, 'F', "ABC"[who]);
    copy(s, '4', "123"[who]);
}

// F is found first, at spot 5, and G wins.
static void prepare_hiding(struct story *s) {
    bool b_first = story_draw(s, 2);
    copy(s, 'F', b_first ? 'B' : 'C');
    copy(s, '5', b_first ? 's' : 't');
    copy(s, 'G', b_first ? 'C' : 'B');
}
