"""Frames of questions about a picture, by type. Slots are filled by
`training.single_questions`."""

# A frame is one line, however long.
# ruff: noqa: E501

DESCRIBE = """
(describe|explain|summarise|summarize|narrate) (the|this|my|that) %PIC%PLEASE
(please |)describe what you see%INPIC
what do you %SEE%INPIC
what can you %SEE%INPIC
what is %HERE
what is (shown|depicted|displayed|drawn|pictured|visible|there|to be seen) %HERE
what does (the|this|my) %PIC %SHOW
what %THINGS (are|do you see|can you see|are there) %HERE
which %THINGS (are|do you see|can you see|are there) %HERE
what kinds of %THINGS are (there|%HERE)
(tell|say to) me what you see%INPIC
%TELL what is %HERE
%TELL what (the|this) %PIC %SHOWs
tell me (about|everything about|all about) (the|this|my) %PIC
(list|name|enumerate|give me|write down) (all |all of |)(the %THINGS|every %THING|everything)%INPIC
what is going on %HERE
what is happening %HERE
what have we got (here|%HERE)
what (all |)is in there
describe (it all|everything|the whole thing|all of it)
give me (a|an) (description|summary|overview|account) of (the|this) %PIC
(can|could|would) you describe (the|this|my) %PIC%PLEASE
(can|could) you (give me|write|make) (a|an) (short |brief |quick |full |)(description|summary|caption)
(write|give|suggest) a caption for (this|the|my) %PIC
what would you say is %HERE
in (a few|your own) words, what is %HERE
what did i (draw|paint|sketch|put) (here|%HERE)
take a look at (this|the|my) %PIC and (describe it|tell me what you see|say what is there)
have a look and (describe it|tell me what you see|say what is in it)
(look at|check out|check) (this|the|my) %PIC and tell me what it %SHOWs
what does it look like %HERE
what do we have (here|%HERE)
(what's|what is) on (the|this) %PIC
i (cannot|can't) see (the|this) %PIC, (what is on it|what is in it|describe it for me|please describe it)
(talk|walk|take|run) me through (the|this|my) %PIC
what stuff is %HERE
what all do you %SEE
everything you %SEE%INPIC, please
(tell me|say) what (things|shapes|objects) you (can see|see|spot|notice)
contents of (the|this) %PIC
could you list what (is|you see) %HERE
what are the %THINGS %HERE
what are the contents of (the|this) %PIC
please (list|name) what is %HERE
show me what you see
(what|which) (items|shapes) appear %HERE
what appears %HERE
your description of (the|this|my) %PIC, please
how would you describe (the|this|my) %PIC
how would you describe (this|it)
what (is|are) your eyes seeing (here|%HERE)
(explain|spell out) what (is|you see) %HERE
anything %HERE
is there anything %HERE
do you see (anything|something)%INPIC
"""

WHAT = """
what is (this|it|that)
what (am i|are we) looking at (here|)
what (have i|did i) (drawn|draw|made|make|painted|sent) (here|)
what (do i|do we) have here
what (do you|would you) (say|think|reckon) (this|it|that) is
%TELL what (this|it|that) is
(name|identify|recognise|recognize) (this|the|that) %THING%PLEASE
what %THING is (this|that|it)
what is the %THING %HERE
(guess|say) what (this|it) is
(which|what) (kind|sort|type) of %THING is (this|that|it)
what would you call (this|that|it)
what is (this|that) thing (called|supposed to be|meant to be|)
what (is|could) (this|it) (be|)
what is that (thing |)(over there|there|%HERE)
(this is|that is|it is) a what
do you know what (this|it|that) is
can you (name|identify|recognise|recognize|tell) (this|the) %THING
what do you (call|make of) (this|that|it)
what %THING (do you see|is it|is shown|did i draw|have i drawn|is %HERE)
which %THING (do you see|is it|is shown|did i draw|have i drawn|is %HERE)
have you any idea what (this|it) is
what am i (seeing|showing you|holding up) here
what did i just (send|show|draw|upload|give)
so what is (this|it|that) then
what is (this|it) exactly
(i forgot|i don't know) what (this|it) is, (tell me|can you help|help me)
what (on earth|the heck) is (this|that)
say what you see
"""

COLOUR = """
what %COLOUR is the {object}
which %COLOUR is the {object}
what is the %COLOUR of the {object}
%TELL what %COLOUR the {object} is
%TELL the %COLOUR of the {object}
what %COLOUR does the {object} have
which %COLOUR does the {object} have
(name|state|give me|say|tell me) the %COLOUR of the {object}
the {object} is what %COLOUR
the {object} is (which|in what) %COLOUR
in (what|which) %COLOUR is the {object} (drawn|painted|filled|coloured|colored|shown|)
what %COLOUR (would you say|do you think|did they make|did i make|did i paint) (is |)the {object} (is|)
how is the {object} (coloured|colored|painted)
what %COLOUR is that {object}
the {object}: what %COLOUR (is it|)
the {object}, what %COLOUR is it
what about the %COLOUR of the {object}
%COLOUR of the {object}
what's the {object}'s %COLOUR
the {object}'s %COLOUR (is|)
what %COLOUR has the {object} (got|been given)
look at the {object}, what %COLOUR is it
there is a {object}, what %COLOUR is it
(i see|i can see|there is) a {object}, (tell me|which is|what is) its %COLOUR
what is the {object} (coloured|colored) (in|like|)
what sort of %COLOUR is the {object}
what kind of %COLOUR does the {object} have
can you see (what|which) %COLOUR the {object} is
do you know (what|which) %COLOUR the {object} is
(please |)identify the %COLOUR of the {object}
(what|which) %COLOUR was used for the {object}
what paint was used for the {object}
what %COLOUR would you call the {object}
(describe|determine|report) the %COLOUR of the {object}
"""

SHAPE = """
what shape is the {colour} (one|thing|object|item|figure|bit|part)
which shape is the {colour} (one|thing|object|item|figure)
what shape is {colour}
which shape is {colour}
what is the {colour} (thing|shape|object|one|item|figure)
what is the shape of the {colour} (thing|object|one|item|figure)
%TELL what (shape |)the {colour} (thing|object|one|item|shape) is
%TELL (which|what) shape is {colour}
what {colour} (shape|thing|object|figure) (is there|do you see|can you see|is it)%INPIC
which {colour} (shape|thing|object|figure) (is there|do you see|can you see)%INPIC
what is {colour}%INPIC
what %THING is {colour} (coloured|colored|)%INPIC
(which|what) of the %THINGS is {colour}
the {colour} (thing|one|object|shape) is what (shape|)
the {colour} (thing|one|object|shape), what (shape |)is it
(name|identify|tell me|say) the {colour} (shape|thing|object|one)
what (kind|sort|type) of (shape|thing|figure) is the {colour} (one|thing|object|item)
what (kind|sort|type) of (shape|thing|figure) is {colour}
what form does the {colour} (thing|object|one) have
what is the form of the {colour} (thing|object|one)
what shape does the {colour} (thing|object|one|item) have
shape of the {colour} (thing|one|object|item)
what figure is {colour}
what would you call the {colour} (shape|thing|one)
there is something {colour}, what (shape |)is it
(i see|there is) a {colour} thing, what (shape |)is it
(something|one) is {colour}, what (shape |)is it
what was (painted|drawn|coloured|colored|done) (in |){colour}
what is that {colour} (thing|shape|one|object|blob|bit)
what shape has the %COLOUR {colour}
look at the {colour} (thing|one), what (shape |)is it
(describe|identify|determine) the shape of the {colour} (thing|one|object)
which (thing|object|one) is {colour}
"""

SIZE = """
what size is the {object}
how (big|large) is the {object}
how small is the {object}
is the {object} %BIG or %SMALL
is the {object} %SMALL or %BIG
is the {object} a %BIG or a %SMALL one
what is the size of the {object}
%TELL (the size of the {object}|what size the {object} is|how (big|large) the {object} is)
%TELL (if|whether) the {object} is %BIG or %SMALL
which size (is|does) the {object} (have|)
what size does the {object} have
is that {object} %BIG or %SMALL
would you (call|say) the {object} (is |)%BIG or %SMALL
do you think the {object} is %BIG or %SMALL
the {object} is %BIG or %SMALL
the {object}, (is it %BIG or %SMALL|how big is it|what size is it)
(describe|state|give me|say|tell me|estimate) the size of the {object}
size of the {object}
what's the {object}'s size
{object}: %BIG or %SMALL
what about the size of the {object}
would the {object} count as %BIG or %SMALL
(what|which) size would you (say|give) the {object} (is|)
how (big|large) would you say the {object} is
how (big|large) (does|did) the {object} (look|appear|seem|get)
does the {object} look %BIG or %SMALL
how much (space|room) does the {object} take up
the size of the {object} is (what|)
(how tall|how wide|what are the dimensions of|what dimensions has) (is |)the {object}
is the {object} more on the %BIG or the %SMALL side
(judge|rate) the size of the {object}
"""

IS_BIG = """
is the {object} {bigness}
is the {object} (a |){bigness} (one|)
would you (call|say) the {object} (is |){bigness}
does the {object} look {bigness}
do you think the {object} is {bigness}
the {object} is {bigness}, (right|isn't it|correct|yes)
%TELL (if|whether) the {object} is {bigness}
"""

COUNT_ALL = """
how many %THINGS are (there|%HERE|here)%INPIC
how many %THINGS (do you|can you) %SEE%INPIC
how many %THINGS (can be seen|are shown|are visible|are drawn|did i draw|have i drawn)%INPIC
(count|count up|number) (the|all|all the|these|my) %THINGS%INPIC%PLEASE
what is the (number|total number|count|total|amount|quantity) of %THINGS%INPIC
%TELL how many %THINGS (there are|you see|are there)%INPIC
how many %THINGS%INPIC
how many %THINGS does (the|this|my) %PIC %SHOW
how many %THINGS has (the|this|my) %PIC (got|)
(can|could) you count the %THINGS%INPIC
number of %THINGS%INPIC
(give me|say|state) the (number|count|total) of %THINGS
how many %THINGS are there (in total|altogether|in all|overall)
in total, how many %THINGS are (there|%HERE)
how many (different |separate |)%THINGS are (there|%HERE)
there are how many %THINGS%INPIC
you (see|count) how many %THINGS
do you know how many %THINGS there are
what (number|amount) of %THINGS (do you see|are there|is there)%INPIC
count (everything|them all|them|what you see)%INPIC
how many (do you|can you) (see|count)%INPIC
how many things did (i|they|someone) (draw|paint|put)%INPIC
(can|could) you tell the number of %THINGS
just how many %THINGS are (there|%HERE)
is there more than one %THING%INPIC
are there (many|several|multiple) %THINGS%INPIC
i count some %THINGS, how many (are there|do you count)
what is the total
how much %THINGS are there
"""

COUNT_SHAPE = """
how many {shapes} are (there|%HERE|here)%INPIC
how many {shapes} (do you|can you) %SEE%INPIC
how many {shapes}%INPIC
how many {shapes} (can be seen|are shown|are visible|are drawn|did i draw|have i drawn)%INPIC
(count|count up) (the|all|all the) {shapes}%INPIC%PLEASE
what is the (number|total number|count|amount|total|quantity) of {shapes}%INPIC
%TELL how many {shapes} (there are|you see|are there)%INPIC
how many {shapes} does (the|this|my) %PIC %SHOW
(can|could) you count the {shapes}%INPIC
number of {shapes}%INPIC
(give me|say|state) the (number|count) of {shapes}
how many of (the %THINGS|them|these) are {shapes}
how many %THINGS are {shapes}
there are how many {shapes}%INPIC
what (number|amount) of {shapes} (do you see|are there|is there)
(and |)how many {shapes} (in total|altogether|overall)
{shapes}: how many (are there|)
do you know how many {shapes} there are
you see how many {shapes}
how many times (do you see a|is there a|does a) {shape} (appear|)%INPIC
of the %THINGS, how many are {shapes}
are there any {shapes}, and how many
how many {shapes} did (i|they|someone) (draw|paint|put)
just how many {shapes} are (there|%HERE)
how many {shapes} has (this|the) %PIC got
for {shapes}, what is the count
"""

COUNT_COLOUR = """
how many {colour} %THINGS are (there|%HERE|here)%INPIC
how many {colour} (ones|things|objects|shapes) (do you|can you) %SEE%INPIC
how many {colour} %THINGS%INPIC
how many {colour} ones (are there|do you see|)
how many %THINGS are {colour}%INPIC
how many of (the %THINGS|them|these) are {colour}
how many are {colour}
(count|count up) (the|all|all the) {colour} %THINGS%INPIC%PLEASE
what is the (number|total number|count|amount|total|quantity) of {colour} %THINGS%INPIC
%TELL how many {colour} %THINGS (there are|you see|are there)
%TELL how many %THINGS are {colour}
how many %THINGS (have|has) the %COLOUR {colour}
how many %THINGS (are coloured|are colored|are painted|are drawn) (in |){colour}
how many {colour} %THINGS does (the|this|my) %PIC %SHOW
(can|could) you count the {colour} (ones|%THINGS)
number of {colour} %THINGS
there are how many {colour} %THINGS
of the %THINGS, how many are {colour}
what (number|amount) of {colour} %THINGS (do you see|are there|is there)
{colour} %THINGS: how many (are there|)
do you know how many {colour} %THINGS there are
how many {colour} (ones|things) did (i|they|someone) (draw|paint|put)
how many things (in|of) {colour} (are there|do you see)
just how many {colour} %THINGS are (there|%HERE)
how many %THINGS (in|of) (the colour|the color|) {colour} (are there|do you see)%INPIC
"""

WHERE = """
where is the {object}
where is the {object} (located|placed|positioned|situated|drawn|put|sitting|found)
where is the {object} %HERE
where (can|do|could) (i|you|we) (find|see|spot|locate) the {object}
where (can|would|should) i look for the {object}
%TELL where the {object} is
%TELL where to find the {object}
%TELL the (position|location|place) of the {object}
what is the (position|location|place|placement|whereabouts) of the {object}
in (what|which) (part|corner|area|region|section|place|position|spot) (of the %PIC |)is the {object}
(on|at) (what|which) side (of the %PIC |)is the {object}
(describe|state|give me|say|tell me) the (position|location|place) of the {object}
(locate|find|spot|point out|point me to|show me) the {object}%PLEASE
position of the {object}
location of the {object}
what (part|corner|area|region|side) of (the|this) %PIC is the {object} in
which (part|corner|area|region|side|bit) of (the|this) %PIC (has|holds|contains) the {object}
the {object} is where
the {object}, where is it
where would you say the {object} is
where does the {object} (sit|lie|appear|stand|live|hang out)
where did (i|they|someone) (put|draw|place) the {object}
where has the {object} been (put|drawn|placed)
whereabouts is the {object}
i (cannot|can't) find the {object}, where is it
i am looking for the {object}, where is it
where abouts (is|lies) the {object}
where in (the|this) %PIC (is|do you see) the {object}
where on (the|this) %PIC (is|do you see) the {object}
(can|could) you (locate|find|point out) the {object}
(can|could) you see where the {object} is
is the {object} (on the left or on the right|at the top or at the bottom|left or right|up or down)
where exactly is the {object}
what is the {object}'s (position|location|place)
help me find the {object}
at (what|which) (place|position|spot) is the {object}
"""

EXISTS = """
is there {a_object}%INPIC
is there {a_object} (anywhere|somewhere|present|visible|too|as well|at all)
do you %SEE {a_object}%INPIC
can you %SEE {a_object}%INPIC
does (the|this|my) %PIC (contain|have|show|include|feature) {a_object}
is {a_object} %HERE
is {a_object} (there|present|visible|shown|included|part of the %PIC)
are there any {objects}%INPIC
are there {objects}%INPIC
do you %SEE any {objects}%INPIC
can you %SEE any {objects}%INPIC
%TELL (if|whether) there is {a_object}%INPIC
%TELL (if|whether) you %SEE {a_object}%INPIC
is there any {object}%INPIC
is there {a_object} in it
any {objects}%INPIC
have you (spotted|seen|found|noticed) {a_object}
did (i|they|someone) (draw|paint|include|put in) {a_object}
have i (drawn|painted|included) {a_object}
has (the|this|my) %PIC got {a_object}
is one of the %THINGS {a_object}
is any of the %THINGS {a_object}
are any of the %THINGS {objects}
there is {a_object}, (right|isn't there|correct|yes|true)
i think there is {a_object}, (right|is that right|am i right|correct)
(i am|i'm) looking for {a_object}, is there one
could there be {a_object}%INPIC
is it true that there is {a_object}%INPIC
true or false: there is {a_object}
would you say there is {a_object}%INPIC
(check|see) (if|whether) there is {a_object}%INPIC
can {a_object} be (seen|found|spotted)%INPIC
{a_object}, is there one
is there such a thing as {a_object}%INPIC
do we have {a_object}%INPIC
"""

BIGGER = """
which is {bigger}, the {object} or the {other}
which (one |%THING |)is {bigger}: the {object} or the {other}
what is {bigger}, the {object} or the {other}
is the {object} or the {other} {bigger}
which of the two is {bigger}, the {object} or the {other}
between the {object} and the {other}, which is {bigger}
of the {object} and the {other}, which (one |)is {bigger}
%TELL (which is|what is) {bigger}, the {object} or the {other}
the {object} or the {other}: which is {bigger}
the {object} or the {other}, which (one |)is {bigger}
compare the {object} (and|with|to) the {other}, which (one |)is {bigger}
which (one |)is the {bigger} (one|%THING|of the two), the {object} or the {other}
which %THING is {bigger}, the {object} or the {other}
who is {bigger}, the {object} or the {other}
which has the {bigger} size, the {object} or the {other}
which one would you say is {bigger}, the {object} or the {other}
(looking at|take) the {object} and the {other}, which (one |)is {bigger}
what's {bigger}: the {object} or the {other}
{bigger}: the {object} or the {other}
name the {bigger} one, the {object} or the {other}
which of these is {bigger}: the {object}, the {other}
if you compare the {object} and the {other}, which (one |)is {bigger}
(compare|how do) the (sizes|size) of the {object} and the {other} (compare|), which is {bigger}
"""

BIGGER_YES_NO = """
is the {object} {bigger} than the {other}
is the {object} {bigger} (compared to|compared with) the {other}
would you say the {object} is {bigger} than the {other}
do you think the {object} is {bigger} than the {other}
%TELL (if|whether) the {object} is {bigger} than the {other}
does the {object} look {bigger} than the {other}
the {object} is {bigger} than the {other}, (right|isn't it|correct)
"""

SAME_SIZE = """
are the {object} and the {other} the same size
do the {object} and the {other} have the same size
is the {object} as (big|large|small) as the {other}
are the {object} and the {other} equally (big|large|small)
(compare|how do) the (sizes|size) of the {object} and the {other} (compare|)
"""

BIGGER_ANY = """
which (one |%THING |)is {bigger}
which (one |%THING |)is the {biggest}
what is the {biggest} (one|%THING)%INPIC
which of (them|the two|these|those|the %THINGS) is {bigger}
which of (them|these|those|the %THINGS) is the {biggest}
%TELL which (one |%THING |)is {bigger}
%TELL which (one |%THING |)is the {biggest}
name the {biggest} %THING
show me the {biggest} (one|%THING)
"""

LEFT_OF = """
is the {object} (to the |on the |)left of the {other}
is the {object} left of the {other}
is the {object} (further|farther|more) (to the |)left than the {other}
is the {object} on the left (hand |)side of the {other}
is the {object} located (to the |)left of the {other}
%TELL (if|whether) the {object} is (to the |)left of the {other}
would you say the {object} is (to the |)left of the {other}
do you see the {object} (to the |)left of the {other}
does the {object} (sit|lie|stand|appear) (to the |)left of the {other}
can the {object} be found (to the |)left of the {other}
is it true that the {object} is (to the |)left of the {other}
the {object} is (to the |)left of the {other}, (right|isn't it|correct|yes or no|true)
true or false: the {object} is (to the |)left of the {other}
looking at the {object} and the {other}, is the {object} (further |)(to the |)left
is the {object} the one (to the |on the |)left of the {other}
did i (put|draw|place) the {object} (to the |)left of the {other}
(compared to|relative to|from) the {other}, is the {object} (to the |)left
do you find the {object} leftwards of the {other}
is the {object} placed leftward of the {other}
"""

RIGHT_OF = """
is the {object} (to the |on the |)right of the {other}
is the {object} right of the {other}
is the {object} (further|farther|more) (to the |)right than the {other}
is the {object} on the right (hand |)side of the {other}
is the {object} located (to the |)right of the {other}
%TELL (if|whether) the {object} is (to the |)right of the {other}
would you say the {object} is (to the |)right of the {other}
do you see the {object} (to the |)right of the {other}
does the {object} (sit|lie|stand|appear) (to the |)right of the {other}
can the {object} be found (to the |)right of the {other}
is it true that the {object} is (to the |)right of the {other}
the {object} is (to the |)right of the {other}, (isn't it|correct|yes or no|true)
true or false: the {object} is (to the |)right of the {other}
looking at the {object} and the {other}, is the {object} (further |)(to the |)right
is the {object} the one (to the |on the |)right of the {other}
did i (put|draw|place) the {object} (to the |)right of the {other}
(compared to|relative to|from) the {other}, is the {object} (to the |)right
do you find the {object} rightwards of the {other}
is the {object} placed rightward of the {other}
"""

ABOVE = """
is the {object} (above|over|above|higher than) the {other}
is the {object} (higher up|further up|higher) than the {other}
is the {object} (on top of|at the top of) the {other}
is the {object} located (above|over|higher than) the {other}
%TELL (if|whether) the {object} is (above|over|higher than) the {other}
would you say the {object} is (above|over|higher than) the {other}
do you see the {object} (above|over) the {other}
does the {object} (sit|lie|stand|appear|hang|float) (above|over|higher than) the {other}
can the {object} be found (above|over) the {other}
is it true that the {object} is (above|over|higher than) the {other}
the {object} is (above|over|higher than) the {other}, (right|isn't it|correct|yes or no|true)
true or false: the {object} is (above|over|higher than) the {other}
looking at the {object} and the {other}, is the {object} (higher|further up|higher up)
did i (put|draw|place) the {object} (above|over|higher than) the {other}
(compared to|relative to) the {other}, is the {object} (higher|above|further up|up)
is the {object} placed (above|over|higher than) the {other}
is the {object} nearer (to |)the top than the {other}
"""

BELOW = """
is the {object} (below|under|beneath|underneath|lower than) the {other}
is the {object} (lower down|further down|lower) than the {other}
is the {object} (down below|right below|somewhere below) the {other}
is the {object} located (below|under|beneath|lower than) the {other}
%TELL (if|whether) the {object} is (below|under|beneath|lower than) the {other}
would you say the {object} is (below|under|beneath|lower than) the {other}
do you see the {object} (below|under|beneath|underneath) the {other}
does the {object} (sit|lie|stand|appear|hang|float) (below|under|beneath|lower than) the {other}
can the {object} be found (below|under|beneath) the {other}
is it true that the {object} is (below|under|beneath|lower than) the {other}
the {object} is (below|under|beneath|lower than) the {other}, (right|isn't it|correct|yes or no|true)
true or false: the {object} is (below|under|beneath|lower than) the {other}
looking at the {object} and the {other}, is the {object} (lower|further down|lower down)
did i (put|draw|place) the {object} (below|under|beneath|lower than) the {other}
(compared to|relative to) the {other}, is the {object} (lower|below|further down|down)
is the {object} placed (below|under|beneath|lower than) the {other}
is the {object} nearer (to |)the bottom than the {other}
"""

BACKGROUND = """
what %COLOUR is the (background|backdrop|background)
which %COLOUR is the (background|backdrop|background)
what is the %COLOUR of the (background|backdrop|background)
what is the (background|backdrop) %COLOUR
%TELL (what %COLOUR the background is|the %COLOUR of the background|the background %COLOUR)
what (kind of |sort of |)background (is there|does it have|is it|do you see|is this)%INPIC
what background does (the|this|my) %PIC have
the background is what %COLOUR
the background, what %COLOUR is it
background %COLOUR
what is behind (the %THINGS|the shapes|it|them|everything)
what %COLOUR is (behind|around) (the %THINGS|the shapes|it|them|everything)
what %COLOUR does the background have
(name|state|say|tell me) the (background %COLOUR|%COLOUR of the background)
how is the background (coloured|colored|painted)
(on|against) what %COLOUR (of background|of backdrop|) are the %THINGS (drawn|placed|shown|)
on (what|which) (background|%COLOUR background|%COLOUR) (is|are) (it|they|the %THINGS) drawn
what %COLOUR (paper|sheet|ground|wall|surface) is it (drawn |)on
what %COLOUR is the (paper|canvas|sheet|ground|rest of the %PIC|empty space|empty part|area around)
describe the (background|backdrop)
(what|how) does the background look like
what about the (background|backdrop) (%COLOUR|)
is the background (white|black|grey|gray|blue|green|red|yellow|dark or light|light or dark|white or black)
which %COLOUR fills the (background|backdrop|rest)
what is in the background
"""

AT_SIDE = """
what is {on_side}%INPIC
what is (there |located |placed |drawn |){on_side}
what %THING is {on_side}
which %THING is {on_side}
what (do|can) you %SEE {on_side}
%TELL what is {on_side}
what about the (one|%THING) {on_side}
what is the (one|%THING|thing) {on_side}
(describe|name|identify) the (one|%THING|thing) {on_side}
the (one|%THING|thing) {on_side}, what is it
which (one|%THING) do you see {on_side}
what stands {on_side}
what have we got {on_side}
look {on_side}, what is (there|it)
"""

IS_COLOUR = """
is the {object} {colour}
is the {object} {colour} (coloured|colored|)
is the {object} (a |){colour} one
does the {object} have the %COLOUR {colour}
is {colour} the %COLOUR of the {object}
would you (say|call) the {object} (is |){colour}
the {object} is {colour}, (right|isn't it|correct|yes)
%TELL (if|whether) the {object} is {colour}
is the %COLOUR of the {object} {colour}
do you think the {object} is {colour}
"""

SAME_COLOUR = """
(do|have) (they|the two|both|both %THINGS) (have |got |)the same %COLOUR
are (they|the two|both|both %THINGS|the %THINGS) the same %COLOUR
are (they|the two|the %THINGS) (different %COLOURs|of the same %COLOUR|equal in %COLOUR)
%TELL (if|whether) (they|the two|the %THINGS) have the same %COLOUR
"""
