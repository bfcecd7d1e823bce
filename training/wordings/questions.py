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
(could|would|can) you walk me through what is in (this|the|my) %PIC
tell me everything (you can see|that you see|that is there|you notice)
give (me |)a short description of the (scene|%PIC)
i (can't|cannot) see the %PIC very well, could you tell me what it shows
please to (explain|describe) what is on (this|the) %PIC
what is going on in this one
so what do we have here
(quick question: |)what exactly (is|can be seen) %HERE
i was wondering what (is|you can see|there is) %HERE
(kindly|please) (state|report|indicate) what (this|the) %PIC (contains|shows|depicts)
imagine i am on the phone. how would you describe (this|the) %PIC to me
i am blind. (please describe|tell me what is on|what is on) (this|the) %PIC
break (this|the) %PIC down for me
here is (a|my) %PIC. (describe it|what do you see|what is on it|what is in it)
my (son|daughter|kid) made this %PIC. what (is on it|does it show|do you see)
the %PIC (shows|contains) what
on the %PIC there is what
(inventory|overview|summary|description|caption) of (the|this) %PIC
what would i see if i looked at (this|the) %PIC
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
what is the (thing|object|shape|figure) in the %PIC
(can|could) you tell me what i am looking at (here|)
(identify|name) the (object|shape|thing|figure) (shown|drawn|in the %PIC|you see)
there is just one thing in here. what would you call it
what object do you see on (this|the) %PIC
any idea what (that|this|it) (is|could be|might be)
please name the (object|shape|figure) in the %PIC
this thing here, what is it
(this|that) is what (shape|thing|object|)
what might (this|that) (thing |)be
i was wondering what (this|that|it) (is|might be|could be)
(quick question: |)what is (this|that) (supposed to be|meant to be)
my (son|daughter|kid) drew something. what is it
someone drew this. what is it (meant to be|supposed to be|)
(kindly|please) (identify|state|specify) (this|the) (object|shape|figure|item)
give me a name for (this|it|that) (thing|shape|object|)
put a name to (this|that|it)
(i bet|let's see whether) you (know|can tell) what (this|it) is
what do people call (this|that|a thing like this)
could you work out what (this|that|it) is
how (do|would) you call (this|that|it)
this here is (what|called what)
one thing is drawn here. which (one|thing|shape)
i can't make out what (this|it|that) is. can you
sorry to bother you, but what is (this|that|it)
what would a child call (this|that) (thing|shape|)
and this (here |)(is|would be) (what|)
what (have you got|do you have) (there|here)
what (has been|was) drawn (here|%HERE)
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
{object} %COLOUR
the {object} has (which|what) %COLOUR
i'm trying to work out what %COLOUR the {object} is. any help
(quick question: |)the {object}, what is its %COLOUR
there is a {object} in there. (what|which) %COLOUR is it
there should be a {object}. (what|which) %COLOUR does it have
i was wondering (what|which) %COLOUR the {object} (is|has|might be)
my (daughter|son|boss|wife|friend) asks (what|which) %COLOUR the {object} (is|has)
(kindly|please) (state|specify|indicate|report) the %COLOUR of the {object}
sorry to bother you, but what %COLOUR is the {object}
concerning the {object}: what is the %COLOUR
as for the {object}, (what|which) %COLOUR (is it|has it|does it have)
what (tint|tone|shade|hue) (is|has) the {object} (in|got|)
what (tint|tone|shade|hue) would you say the {object} (has|is)
if you had to name the %COLOUR of the {object}, what would it be
which crayon (would i need|do i need|was used) for the {object}
which (pencil|felt tip|marker|crayon) was the {object} drawn with
i want to paint the same {object}. (what|which) %COLOUR do i (take|need|use)
the %COLOUR of the {object} is
the %COLOUR of the {object} is (what|which)
of what %COLOUR is the {object}
of (which|what) %COLOUR would the {object} be
give the {object}'s %COLOUR
(now |)look at the {object} and (name|tell me|say) its %COLOUR
find the {object} and (name|tell me|say) its %COLOUR
(do|can) you recognise the %COLOUR of the {object}
the {object} comes in (what|which) %COLOUR
(what|which) %COLOUR did they (choose|pick|use) for the {object}
{object}, %COLOUR
for the {object}, (what|which) %COLOUR do you see
i can't tell colours apart. what %COLOUR is the {object}
the {object} was painted in (what|which) %COLOUR
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
name the shape that (has been|was|is) (coloured|colored|painted) {colour}
there is something {colour} in there. what shape is it
the {colour} (object|thing|one) is of (what|which) shape
can you tell me what kind of (shape|figure) the {colour} one is
{colour} (thing|one|object) = what shape
the {colour} (thing|one|object|part) has (what|which) (shape|form)
i was wondering (what|which) shape the {colour} (thing|one|object) (is|has)
my (daughter|son|boss|wife|friend) asks what shape the {colour} (one|thing|object) (is|has)
(kindly|please) (state|specify|indicate|report) the (shape|form) of the {colour} (object|one|figure|item)
sorry to bother you, but what shape is the {colour} (one|thing|object)
(quick question: |)the {colour} (one|thing), what is its (shape|form)
as for the {colour} (one|thing|object), (what|which) shape (is it|has it|does it have)
concerning the {colour} (one|thing|object): what is the shape
i can see something {colour}. what (shape |)(is|might|could) (that|it) (be|)
i see a bit of {colour}. what shape does it (have|make)
of (what|which) shape is the {colour} (one|thing|object|item)
which of (them|these|the shapes) (has been|was) (drawn|painted|done) in {colour}
(what|which) (shape|figure) did (they|i|someone) (paint|colour|color|draw|make) {colour}
{colour} shape
{colour} (one|thing|object), shape
the {colour} shape is (called what|which one|what)
look for the {colour} (one|thing|object) and (name|tell me|say) its shape
find the {colour} (one|thing) and say what shape it is
how is the {colour} (one|thing|object) shaped
what outline does the {colour} (one|thing|object) have
in what shape is the {colour} (one|thing|object)
if something is {colour}, what shape (is it|does it have)
what is it that is {colour}
what is the name of the {colour} (shape|figure)
give me the shape of the {colour} (one|thing|object)
what would the {colour} (one|thing) be, a circle, a square or (what|something else)
what geometric (shape|figure|form) is the {colour} (one|object|thing)
i need the (name|form) of the {colour} shape
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
how is the size of the {object}, %BIG or %SMALL
is that {object} a %BIG one or a %SMALL one
the {object}: %BIG or %SMALL
please state the size of the {object}
the {object}, it is %BIG or it is %SMALL
tell me, is the {object} a %SMALL one or is it more of a %BIG one
{object} size
the {object} has (what|which) size
(quick question: |)the {object}, what is its size
there is a {object} in there. (how big is it|what size is it|is it %BIG or %SMALL)
i can see a {object}. (how large is it|what is its size|is it %SMALL or %BIG)
i was wondering (how big|how large|what size) the {object} is
my (daughter|son|boss|wife|friend) asks (how big|what size|how large) the {object} is
(kindly|please) (specify|indicate|report|tell me) (the size of the {object}|how large the {object} is)
sorry to bother you, but how (big|large) is the {object}
as for the {object}, (what size is it|how big is it|is it %BIG or %SMALL)
concerning the {object}: what is the size
of (what|which) size is the {object}
is that a %BIG {object} or just a %SMALL one
is it a %BIG or a %SMALL {object}
%BIG or %SMALL, the {object}
look at the {object} and (tell me|say) (how big it is|its size|whether it is %BIG or %SMALL)
find the {object} and (tell me|say) (how big it is|its size)
if you had to choose, is the {object} %BIG or %SMALL
would you describe the {object} as %BIG or (as |)%SMALL
(did|have) they (draw|drawn|make|made) the {object} %BIG or %SMALL
how (big|large) (was|has) the {object} (been |)(drawn|made)
is the size of the {object} %BIG or %SMALL
in terms of size, (how is|what is) the {object}
give me the {object}'s size
does the {object} seem (rather |)%BIG or (rather |)%SMALL
the {object} is how (big|large)
"""

IS_BIG = """
is the {object} {bigness}
is the {object} (a |){bigness} (one|)
would you (call|say) the {object} (is |){bigness}
does the {object} look {bigness}
do you think the {object} is {bigness}
the {object} is {bigness}, (right|isn't it|correct|yes)
%TELL (if|whether) the {object} is {bigness}
is it a {bigness} {object}
can you call the {object} {bigness}
is the size of the {object} {bigness}
there is a {object}. is it {bigness}
(quick question: |)the {object}, is it {bigness}
does the {object} count as {bigness}
the {object} is {bigness}, (yes or no|true or not|am i right)
was the {object} (drawn|made) {bigness}
is that {object} (really |){bigness}
true or false: the {object} is {bigness}
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
if you counted up everything (in here|%HERE), how many %THINGS would you get
count the %THINGS for me, would you
please (report|state|indicate) how many (figures|shapes|objects) the %PIC (contains|shows|has)
how many %THINGS (can|do) you see altogether
how much %THINGS (are|is) (in|on) the %PIC
how many %THINGS (are|r) (in|on) (here|there)
the %PIC (has|contains|shows) how many %THINGS
on the %PIC there are how many %THINGS
i was wondering how many %THINGS (there are|you see|you can count)
my (daughter|son|boss|wife|friend) asks how many %THINGS there are
(kindly|please) (count|count up) (all the %THINGS|everything|all of them) %HERE
sorry to bother you, but how many %THINGS are there
one, two, three? how many %THINGS are there
(quick question: |)how many %THINGS (all told|in all|in total)
what number of %THINGS (did you count|do you count|would you count)
(run|do) a count of (all |)the %THINGS (for me|)
total number of %THINGS
%THINGS: how many
how many %THINGS would you say (there are|are there)
is it one, two or three %THINGS
one %THING or (more|several|two or three)
tell me the (overall|total) (count|number) of %THINGS
i can't see well. how many %THINGS are (there|%HERE)
how many individual %THINGS (make up|form) (the|this) %PIC
(make|take) a headcount of the %THINGS
give the number of all (the |)%THINGS
what is your count of the %THINGS
how many %THINGS am i looking at
every %THING counted, how many are there
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
number of {shapes}%PLEASE
how much {shapes} (there are|are there) on the %PIC
i'd like to know how many of the %THINGS are {shapes}
any {shapes} in there, and if so, how many
could you count the {shapes} for me
the %PIC (has|contains|shows) how many {shapes}
on the %PIC there are how many {shapes}
i was wondering how many {shapes} (there are|you see|you can count)
my (daughter|son|boss|wife|friend) asks how many {shapes} there are
(kindly|please) (state|report|indicate) (the number of {shapes}|how many {shapes} there are)
sorry to bother you, but how many {shapes} are there
(quick question: |)how many {shapes} (in all|in total|all told)
(i see|i can see|there are) some {shapes}. how many (are there|is that)
i am looking for {shapes}. how many (are there|do you see|can you find)
as for {shapes}, how many (are there|do you see)
speaking of {shapes}, how many (are there|do you see)
only the {shapes}: how many (are there|)
counting only (the |){shapes}, how many (are there|do you get)
if you count (only |just |)the {shapes}, how many (do you get|are there)
{shapes}, how many
how many {shapes} would you say (there are|are there)
how many {shapes} did you (count|spot|find|notice)
how many {shapes} (could|can) one (count|find|spot|see)
what is your count of {shapes}
tell me the (number|count|quantity) of {shapes}
among the %THINGS, how many {shapes} are there
how many %THINGS (are|look like|count as) {shapes}
are there one, two or three {shapes}
no {shapes}, one, or more? how many are there
give the quantity of {shapes}
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
what is the number of %THINGS that are {colour}
of all the %THINGS here, how many are {colour}
how many of these would you say are {colour}
count of {colour} %THINGS
how much %THINGS of {colour} (colour|color|) are %HERE
how many {colour} ones
the %PIC (has|contains|shows) how many {colour} %THINGS
on the %PIC there are how many {colour} %THINGS
i was wondering how many {colour} %THINGS (there are|you see|you can count)
my (daughter|son|boss|wife|friend) asks how many %THINGS are {colour}
(kindly|please) (state|report|indicate) (the number of {colour} %THINGS|how many %THINGS are {colour})
sorry to bother you, but how many %THINGS are {colour}
(quick question: |)how many {colour} (ones|%THINGS) (in all|in total|all told)
i am looking for {colour} %THINGS. how many (are there|do you see|can you find)
as for {colour} (ones|%THINGS), how many (are there|do you see)
only the {colour} ones: how many (are there|)
counting only (the |){colour} (ones|%THINGS), how many (are there|do you get)
if you count (only |just |)the {colour} (ones|%THINGS), how many (do you get|are there)
{colour} ones, how many
how many (objects|shapes|things) (did|have) (they|i|you) (paint|painted|colour|coloured) {colour}
how many {colour} (ones|%THINGS) would you say (there are|are there)
how many {colour} (ones|%THINGS) did you (count|spot|find|notice)
how many %THINGS (share|wear) the (colour|color) {colour}
what is your count of {colour} %THINGS
tell me the (number|count|quantity) of {colour} (ones|%THINGS)
among the %THINGS, how many {colour} ones are there
how many %THINGS (look|appear|seem) {colour}
are there one, two or three {colour} (ones|%THINGS)
give the quantity of {colour} %THINGS
take the (colour|color) {colour}. how many %THINGS have it
{colour}: how many %THINGS
is there any {colour} %THING, and how many
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
where is the {object} at
(can|could) you tell me whereabouts the {object} is
give the (position|location) of the {object}
i can't find the {object}, where should i look
on what place of the %PIC is the {object}
location of {object}
where in the %PIC is the {object}
{object} (position|location|place)
(quick question: |)the {object}, where (exactly |)(is it|did they put it)
there is a {object} in there. where (is it|exactly is it|can i find it)
somewhere there is a {object}. where (is it|)
i was wondering where the {object} (is|was put|might be|is placed)
my (daughter|son|boss|wife|friend) asks where the {object} is
(kindly|please) (state|specify|indicate|report) (the position of the {object}|where the {object} is)
sorry to bother you, but where is the {object}
as for the {object}, where is it (placed|located|)
concerning the {object}: where is it
the {object} is (on|in|at) (what|which) (place|part|side|corner|spot)
the {object} (sits|lies|is placed|is situated|is positioned) where
if i wanted to point at the {object}, where would i point
where would my finger have to go to touch the {object}
where do my eyes have to go to (see|find) the {object}
which (spot|place|position|corner|part) does the {object} (have|occupy|take|take up)
how is the {object} (positioned|placed) in the %PIC
is the {object} (on the left, on the right or in the middle|at the top, in the middle or at the bottom)
is the {object} (up top|high up) or (down low|further down), left or right
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
(have we|have you|did they) got {a_object} in here
there is {a_object} (on|in) the %PIC, (yes or no|true or not|is that so)
would i find {a_object} in (this|the) %PIC
i'm looking for {a_object}. is there one (here|there|)
can you see {a_object} anywhere
{a_object}, yes or no
i was wondering (if|whether) there (is|might be) {a_object}%INPIC
my (daughter|son|boss|wife|friend) asks (if|whether) there is {a_object}
(kindly|please) (confirm|state|indicate|report) whether there is {a_object}
sorry to bother you, but is there {a_object}%INPIC
(quick question: |)is {a_object} (in it|among them|to be seen|on show)
does {a_object} (appear|occur|feature|show up|exist)%INPIC
among the %THINGS, is there {a_object}
is {a_object} among the %THINGS
did (anyone|somebody|someone) (draw|put) {a_object} (in here|%HERE)
(does|do) your eyes (see|find|spot) {a_object}
(is there|do you see) at least one {object}
there {object}, yes or no
was {a_object} (drawn|painted|included|put)%INPIC
the %PIC (has|contains|shows) {a_object}, (yes or no|is that so|does it)
can i find {a_object} somewhere (here|there|%HERE)
someone told me there is {a_object} here. is that (true|right|so)
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
(compare the size of|how do the sizes compare of) the {object} and the {other}, which is {bigger}
tell me which is the {bigger} one, {object} or {other}
if you compare the {object} and the {other}, which comes out {bigger}
out of the {object} and the {other}, which would you say is (the |){bigger}
{object} or {other}, which is {bigger}
please compare the {object} with the {other}: which one is {bigger} (in size|)
(quick question: |)who is the {bigger} one, the {object} or the {other}
there is the {object} and there is the {other}. which is {bigger}
i see the {object} and the {other}. which (one |)is {bigger}
i was wondering which is {bigger}, the {object} or the {other}
my (daughter|son|boss|wife|friend) asks which is {bigger}, the {object} or the {other}
(kindly|please) (state|indicate|say) which is {bigger}, the {object} or the {other}
sorry to bother you, but which is {bigger}, the {object} or the {other}
take two of them, the {object} and the {other}. which (one |)is {bigger}
is it the {object} or the {other} that is {bigger}
is it the {object} that is {bigger} or (is it |)the {other}
what of the two is {bigger}, {object} or {other}
as for size, which (one |)is {bigger}, the {object} or the {other}
in (terms of |)size, is the {object} {bigger} or (is |)the {other}
which do you (think|find|consider) {bigger}, the {object} or the {other}
which (looks|seems|appears) {bigger}, the {object} or the {other}
which (looks|seems|appears) {bigger} to you: the {object} or the {other}
which was (drawn|made|painted) {bigger}, the {object} or the {other}
(pick|choose|give me) the {bigger} one: (the |){object} or (the |){other}
(pick|choose|name) the {bigger} of the {object} and the {other}
the {bigger} one, is it the {object} or the {other}
the {bigger} of the two, the {object} and the {other}, is which
which {bigger}: {object} or {other}
{object} versus {other}: which is {bigger}
{object} vs {other}, {bigger} one
put the {object} next to the {other}. which (one |)is {bigger}
(comparing|measuring) the {object} and the {other}, which (one |)is {bigger}
when you put the {object} beside the {other}, which (one |)is {bigger}
which one takes the prize for being {bigger}, the {object} or the {other}
"""

BIGGER_YES_NO = """
is the {object} {bigger} than the {other}
is the {object} {bigger} (compared to|compared with) the {other}
would you say the {object} is {bigger} than the {other}
do you think the {object} is {bigger} than the {other}
%TELL (if|whether) the {object} is {bigger} than the {other}
does the {object} look {bigger} than the {other}
the {object} is {bigger} than the {other}, (right|isn't it|correct)
{object} {bigger} than {other}, (yes or no|true or not)
compared (with|to) the {other}, is the {object} {bigger}
(quick question: |)the {object}, is it {bigger} than the {other}
true or false: the {object} is {bigger} than the {other}
is it true that the {object} is {bigger} than the {other}
was the {object} (drawn|made) {bigger} than the {other}
next to the {other}, (does the {object} look|is the {object}) {bigger}
can you (confirm|check) (that|whether|if) the {object} is {bigger} than the {other}
in size, is the {object} {bigger} than the {other}
is the {object} the {bigger} one compared with the {other}
i think the {object} is {bigger} than the {other}, (am i right|is that right)
does the {object} seem {bigger} than the {other}
would you call the {object} {bigger} than the {other}
i was wondering (if|whether) the {object} is {bigger} than the {other}
is that {object} {bigger} than the {other}
could it be that the {object} is {bigger} than the {other}
the {object}, is it the {bigger} one next to the {other}
did they (draw|make|paint) the {object} {bigger} than the {other}
there is the {other}. is the {object} {bigger} than that
"""

SAME_SIZE = """
are the {object} and the {other} the same size
do the {object} and the {other} have the same size
is the {object} as (big|large|small) as the {other}
are the {object} and the {other} equally (big|large|small)
(compare|how do) the (sizes|size) of the {object} and the {other} (compare|)
are the {object} and the {other} of (the same|equal) size
is the {object} the same size as the {other}
does the {object} have the same size as the {other}
%TELL (if|whether) the {object} and the {other} are the same size
the {object} and the {other} are the same size, (right|aren't they|correct|yes or no)
true or false: the {object} and the {other} are equally (big|large)
is the {object} just as (big|large) as the {other}
do the sizes of the {object} and the {other} match
do the {object} and the {other} match in size
were the {object} and the {other} (drawn|made) the same size
{object} and {other}: same size
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
(quick question: |)which of the two %THINGS is {bigger}
of the two, which (one |)is {bigger}
there are two %THINGS. which (one |)is {bigger}
there are two of them. which (one |)is the {bigger} one
who is the {biggest} (here|of them|)
the {biggest} (one|%THING) is (which|what)
(pick|choose|find) the {biggest} (one|%THING)
which %THING would you say is {bigger}
which (one|%THING) (looks|seems|was drawn) {bigger}
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
quick one: {object} (to the |on the |)left of {other}, (yes or no|true or not)
{object} (to the |on the |)left of {other}
{object} (to the |on the |)left of {other}, (yes or no|yes/no|y/n|true or false)
would i find the {object} (further|farther|more) (to the |)left than the {other}
is the {object} (further|farther|more) (to the |)left than the {other} is
the {object} is (to the |on the |)left of the {other}, (correct|is that right|am i right|is it so|is it not)
tell me (whether|if) the {object} lies (to the |on the |)left of the {other}
so the {object}, is it (over |)(to|on) the left compared with the {other}
does the {object} lie (to the |on the |)left of the {other}
the {object} is (further|farther|more) (to the |)left than the {other}, (isn't it|yes or no|right|correct)
looking at the {other}, is the {object} somewhere (to the |)left of it
please confirm whether the {object} is positioned (to the |on the |)left of the {other}
(compared with|relative to|with respect to|in relation to) the {other}, is the {object} (further|farther|more) (to the |)left
relative to the {other}, does the {object} sit (over |)(to|on) the left
seen from the {other}, is the {object} (over |)(to|on) the left
is the {object} (situated|positioned|placed|drawn|somewhere) (to the |on the |)left of the {other}
state whether the {object} is (located|situated|positioned) (to the |on the |)left of the {other}
(can|could) you (check|confirm|verify) (if|whether|that) the {object} is (to the |on the |)left of the {other}
does the {object} come (further|farther|more) (to the |)left in the %PIC than the {other}
is the {object} (closer|nearer) to the left (edge|side|) than the {other} (is|)
is it true that the {object} is situated (to the |on the |)left of the {other}
i was wondering (if|whether) the {object} is (to the |on the |)left of the {other}
my (daughter|son|boss|wife|friend) asks (if|whether) the {object} is (to the |on the |)left of the {other}
kindly (state|indicate|tell me) whether the {object} is (to the |on the |)left of the {other}
sorry to bother you, but is the {object} (to the |on the |)left of the {other}
there is the {object} and there is the {other}. is the first (one |)(to the |on the |)left of the second (one|)
there is the {other}. is the {object} (to the |)left of it
find the {other}. is the {object} (to the |)left of it
find the {object}. is it (to the |on the |)left of the {other}
the {object}, is it (to the |on the |)left of the {other}
as for the {object}, is it (to the |on the |)left of the {other}
(i think|i believe|i would say|my guess is) the {object} is (to the |on the |)left of the {other}. (am i right|is that right|correct|is that so)
does the {other} have the {object} (to|on) its left
if i start at the {other}, (do i|must i|do i have to) go (left|to the left|leftwards) to (reach|get to|find) the {object}
going from the {other} to the {object}, (do i|do you|would i) (move|go) (left|to the left|leftwards)
out of these two, is the {object} (further|farther|more) (to the |)left than the {other}
in the %PIC, is the {object} (to the |on the |)left of the {other}
did they (put|draw|place|paint) the {object} (to the |on the |)left of the {other}
has the {object} been (put|placed|drawn) (to the |on the |)left of the {other}
do you think the {object} is (to the |on the |)left of the {other}
is the position of the {object} (to the |on the |)left of (that of |)the {other}
could it be that the {object} is (to the |on the |)left of the {other}
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
quick one: {object} (to the |on the |)right of {other}, (yes or no|true or not)
{object} (to the |on the |)right of {other}
{object} (to the |on the |)right of {other}, (yes or no|yes/no|y/n|true or false)
would i find the {object} (further|farther|more) (to the |)right than the {other}
is the {object} (further|farther|more) (to the |)right than the {other} is
the {object} is (to the |on the |)right of the {other}, (correct|is that right|am i right|is it so|is it not)
tell me (whether|if) the {object} lies (to the |on the |)right of the {other}
so the {object}, is it (over |)(to|on) the right compared with the {other}
does the {object} lie (to the |on the |)right of the {other}
the {object} is (further|farther|more) (to the |)right than the {other}, (isn't it|yes or no|right|correct)
looking at the {other}, is the {object} somewhere (to the |)right of it
please confirm whether the {object} is positioned (to the |on the |)right of the {other}
(compared with|relative to|with respect to|in relation to) the {other}, is the {object} (further|farther|more) (to the |)right
relative to the {other}, does the {object} sit (over |)(to|on) the right
seen from the {other}, is the {object} (over |)(to|on) the right
is the {object} (situated|positioned|placed|drawn|somewhere) (to the |on the |)right of the {other}
state whether the {object} is (located|situated|positioned) (to the |on the |)right of the {other}
(can|could) you (check|confirm|verify) (if|whether|that) the {object} is (to the |on the |)right of the {other}
does the {object} come (further|farther|more) (to the |)right in the %PIC than the {other}
is the {object} (closer|nearer) to the right (edge|side|) than the {other} (is|)
is it true that the {object} is situated (to the |on the |)right of the {other}
i was wondering (if|whether) the {object} is (to the |on the |)right of the {other}
my (daughter|son|boss|wife|friend) asks (if|whether) the {object} is (to the |on the |)right of the {other}
kindly (state|indicate|tell me) whether the {object} is (to the |on the |)right of the {other}
sorry to bother you, but is the {object} (to the |on the |)right of the {other}
there is the {object} and there is the {other}. is the first (one |)(to the |on the |)right of the second (one|)
there is the {other}. is the {object} (to the |)right of it
find the {other}. is the {object} (to the |)right of it
find the {object}. is it (to the |on the |)right of the {other}
the {object}, is it (to the |on the |)right of the {other}
as for the {object}, is it (to the |on the |)right of the {other}
(i think|i believe|i would say|my guess is) the {object} is (to the |on the |)right of the {other}. (am i right|is that right|correct|is that so)
does the {other} have the {object} (to|on) its right
if i start at the {other}, (do i|must i|do i have to) go (right|to the right|rightwards) to (reach|get to|find) the {object}
going from the {other} to the {object}, (do i|do you|would i) (move|go) (right|to the right|rightwards)
out of these two, is the {object} (further|farther|more) (to the |)right than the {other}
in the %PIC, is the {object} (to the |on the |)right of the {other}
did they (put|draw|place|paint) the {object} (to the |on the |)right of the {other}
has the {object} been (put|placed|drawn) (to the |on the |)right of the {other}
do you think the {object} is (to the |on the |)right of the {other}
is the position of the {object} (to the |on the |)right of (that of |)the {other}
could it be that the {object} is (to the |on the |)right of the {other}
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
quick one: {object} (above|over|higher than|higher up than) {other}, (yes or no|true or not)
{object} (above|over|higher than|higher up than) {other}
{object} (above|over|higher than|higher up than) {other}, (yes or no|yes/no|y/n|true or false)
would i find the {object} (higher|higher up|further up) than the {other}
is the {object} (higher|higher up|further up) than the {other} is
the {object} is (above|over|higher than|higher up than) the {other}, (correct|is that right|am i right|is it so|is it not)
tell me (whether|if) the {object} lies (above|over|higher than|higher up than) the {other}
so the {object}, is it (above|higher up|up above) compared with the {other}
does the {object} lie (above|over|higher than|higher up than) the {other}
the {object} is (higher|higher up|further up) than the {other}, (isn't it|yes or no|right|correct)
looking at the {other}, is the {object} somewhere (above it|over it|higher than it)
please confirm whether the {object} is positioned (above|over|higher than|higher up than) the {other}
(compared with|relative to|with respect to|in relation to) the {other}, is the {object} (higher|higher up|further up)
relative to the {other}, does the {object} sit (above|higher up|up above)
seen from the {other}, is the {object} (above|higher up|up above)
is the {object} (situated|positioned|placed|drawn|somewhere) (above|over|higher than|higher up than) the {other}
state whether the {object} is (located|situated|positioned) (above|over|higher than|higher up than) the {other}
(can|could) you (check|confirm|verify) (if|whether|that) the {object} is (above|over|higher than|higher up than) the {other}
does the {object} come (higher|higher up|further up) in the %PIC than the {other}
is the {object} (closer|nearer) to the top (edge|) than the {other} (is|)
is it true that the {object} is situated (above|over|higher than|higher up than) the {other}
i was wondering (if|whether) the {object} is (above|over|higher than|higher up than) the {other}
my (daughter|son|boss|wife|friend) asks (if|whether) the {object} is (above|over|higher than|higher up than) the {other}
kindly (state|indicate|tell me) whether the {object} is (above|over|higher than|higher up than) the {other}
sorry to bother you, but is the {object} (above|over|higher than|higher up than) the {other}
there is the {object} and there is the {other}. is the first (one |)(above|over|higher than|higher up than) the second (one|)
there is the {other}. is the {object} (above it|over it|higher than it)
find the {other}. is the {object} (above it|over it|higher than it)
find the {object}. is it (above|over|higher than|higher up than) the {other}
the {object}, is it (above|over|higher than|higher up than) the {other}
as for the {object}, is it (above|over|higher than|higher up than) the {other}
(i think|i believe|i would say|my guess is) the {object} is (above|over|higher than|higher up than) the {other}. (am i right|is that right|correct|is that so)
does the {other} have the {object} (above it|over it)
if i start at the {other}, (do i|must i|do i have to) go (up|upwards) to (reach|get to|find) the {object}
going from the {other} to the {object}, (do i|do you|would i) (move|go) (up|upwards)
out of these two, is the {object} (higher|higher up|further up) than the {other}
in the %PIC, is the {object} (above|over|higher than|higher up than) the {other}
did they (put|draw|place|paint) the {object} (above|over|higher than|higher up than) the {other}
has the {object} been (put|placed|drawn) (above|over|higher than|higher up than) the {other}
do you think the {object} is (above|over|higher than|higher up than) the {other}
is the position of the {object} (above|over|higher than|higher up than) (that of |)the {other}
could it be that the {object} is (above|over|higher than|higher up than) the {other}
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
quick one: {object} (below|under|beneath|underneath|lower than) {other}, (yes or no|true or not)
{object} (below|under|beneath|underneath|lower than) {other}
{object} (below|under|beneath|underneath|lower than) {other}, (yes or no|yes/no|y/n|true or false)
would i find the {object} (lower|lower down|further down) than the {other}
is the {object} (lower|lower down|further down) than the {other} is
the {object} is (below|under|beneath|underneath|lower than) the {other}, (correct|is that right|am i right|is it so|is it not)
tell me (whether|if) the {object} lies (below|under|beneath|underneath|lower than) the {other}
so the {object}, is it (below|lower down|down below) compared with the {other}
does the {object} lie (below|under|beneath|underneath|lower than) the {other}
the {object} is (lower|lower down|further down) than the {other}, (isn't it|yes or no|right|correct)
looking at the {other}, is the {object} somewhere (below it|under it|beneath it|lower than it)
please confirm whether the {object} is positioned (below|under|beneath|underneath|lower than) the {other}
(compared with|relative to|with respect to|in relation to) the {other}, is the {object} (lower|lower down|further down)
relative to the {other}, does the {object} sit (below|lower down|down below)
seen from the {other}, is the {object} (below|lower down|down below)
is the {object} (situated|positioned|placed|drawn|somewhere) (below|under|beneath|underneath|lower than) the {other}
state whether the {object} is (located|situated|positioned) (below|under|beneath|underneath|lower than) the {other}
(can|could) you (check|confirm|verify) (if|whether|that) the {object} is (below|under|beneath|underneath|lower than) the {other}
does the {object} come (lower|lower down|further down) in the %PIC than the {other}
is the {object} (closer|nearer) to the bottom (edge|) than the {other} (is|)
is it true that the {object} is situated (below|under|beneath|underneath|lower than) the {other}
i was wondering (if|whether) the {object} is (below|under|beneath|underneath|lower than) the {other}
my (daughter|son|boss|wife|friend) asks (if|whether) the {object} is (below|under|beneath|underneath|lower than) the {other}
kindly (state|indicate|tell me) whether the {object} is (below|under|beneath|underneath|lower than) the {other}
sorry to bother you, but is the {object} (below|under|beneath|underneath|lower than) the {other}
there is the {object} and there is the {other}. is the first (one |)(below|under|beneath|underneath|lower than) the second (one|)
there is the {other}. is the {object} (below it|under it|beneath it|lower than it)
find the {other}. is the {object} (below it|under it|beneath it|lower than it)
find the {object}. is it (below|under|beneath|underneath|lower than) the {other}
the {object}, is it (below|under|beneath|underneath|lower than) the {other}
as for the {object}, is it (below|under|beneath|underneath|lower than) the {other}
(i think|i believe|i would say|my guess is) the {object} is (below|under|beneath|underneath|lower than) the {other}. (am i right|is that right|correct|is that so)
does the {other} have the {object} (below it|under it|beneath it)
if i start at the {other}, (do i|must i|do i have to) go (down|downwards) to (reach|get to|find) the {object}
going from the {other} to the {object}, (do i|do you|would i) (move|go) (down|downwards)
out of these two, is the {object} (lower|lower down|further down) than the {other}
in the %PIC, is the {object} (below|under|beneath|underneath|lower than) the {other}
did they (put|draw|place|paint) the {object} (below|under|beneath|underneath|lower than) the {other}
has the {object} been (put|placed|drawn) (below|under|beneath|underneath|lower than) the {other}
do you think the {object} is (below|under|beneath|underneath|lower than) the {other}
is the position of the {object} (below|under|beneath|underneath|lower than) (that of |)the {other}
could it be that the {object} is (below|under|beneath|underneath|lower than) the {other}
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
what is the %COLOUR behind everything
please tell me the %COLOUR of the (backdrop|background)
the background is of (which|what) %COLOUR
(which|what) %COLOUR has been used for the background
what %COLOUR did they make the (bg|background|backdrop)
and the background, what %COLOUR would you say that is
background
bg %COLOUR
the (background|backdrop) has (which|what) %COLOUR
(quick question: |)the background, (which|what) %COLOUR (is it|does it have|has it)
i was wondering (what|which) %COLOUR the (background|backdrop) (is|has)
my (daughter|son|boss|wife|friend) asks (what|which) %COLOUR the background (is|has)
(kindly|please) (state|specify|indicate|report) the (background %COLOUR|%COLOUR of the background)
sorry to bother you, but what %COLOUR is the background
as for the background, (what|which) %COLOUR (is it|does it have)
concerning the background: what is the %COLOUR
there is a background. what %COLOUR (is it|does it have)
forget the %THINGS. what %COLOUR is the background
never mind the %THINGS, what %COLOUR is (behind them|the background|the backdrop)
what %COLOUR is the bit behind the (shapes|things|objects)
what is it all drawn on
what %COLOUR is it all (drawn|painted|placed) on
what %COLOUR is the (canvas|paper|page|surface) (behind the shapes|underneath the shapes|they are on)
if you took the %THINGS away, what %COLOUR would (be left|remain)
if all the %THINGS were gone, (what|which) %COLOUR would you see
what %COLOUR are the %THINGS (on|sitting on|placed on|drawn on|painted on|in front of)
what %COLOUR (surrounds|is all around) the %THINGS
what %COLOUR do you see (behind|around) the %THINGS
what is the %COLOUR (around|behind) the (shapes|objects|figures)
(what|which) %COLOUR was the %PIC filled with
(what|which) %COLOUR was used (behind the shapes|to fill the background|for the backdrop|for the back)
(what|which) (tint|tone|hue|shade) (is|has) the (background|backdrop) (got|)
(what|which) %COLOUR lies (behind|in back of) the %THINGS
in (what|which) %COLOUR is the (background|backdrop) (painted|filled|drawn|done|)
how would you describe the (background|backdrop)
which %COLOUR would you call the background
name the %COLOUR in the (background|back)
what %COLOUR is in the (back|background)
the %THINGS stand (on|against) (what|which) %COLOUR
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
(quick question: |)what is (to be seen |to be found |){on_side}
i was wondering what is {on_side}
(kindly|please) (state|identify) what is {on_side}
sorry to bother you, but what is {on_side}
there is something {on_side}. what is it
something is {on_side}. what (thing|shape) is (it|that)
what (has been|was) (drawn|put|placed) {on_side}
tell me what you see {on_side}
which (shape|figure|thing) (sits|lies|appears) {on_side}
anything {on_side}
{on_side}, what (is there|do you see)
{on_side} is what
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
is it true that the {object} is {colour}
true or false: the {object} is {colour}
{object} {colour}, (yes or no|true or not)
there is a {object}. is it {colour}
(quick question: |)the {object}, is it {colour}
was the {object} (painted|coloured|drawn|colored) {colour}
can you confirm that the {object} is {colour}
does the {object} look {colour}
i think the {object} is {colour}, (am i right|is that right)
i was wondering (if|whether) the {object} is {colour}
"""

SAME_COLOUR = """
(do|have) (they|the two|both|both %THINGS) (have |got |)the same %COLOUR
are (they|the two|both|both %THINGS|the %THINGS) the same %COLOUR
are (they|the two|the %THINGS) (of the same %COLOUR|equal in %COLOUR)
%TELL (if|whether) (they|the two|the %THINGS) have the same %COLOUR
do they match in %COLOUR
do their %COLOURs match
is the %COLOUR of both (%THINGS |)the same
are both %THINGS of one %COLOUR
same %COLOUR (for both|or not)
is it the same %COLOUR for both (of them|%THINGS|)
they have the same %COLOUR, (right|don't they|correct|yes or no)
true or false: both %THINGS have the same %COLOUR
were (both|the two) %THINGS painted (in |)the same %COLOUR
(quick question: |)are the two %THINGS alike in %COLOUR
do (both|the two) share (a|one|the same) %COLOUR
i was wondering (if|whether) both are the same %COLOUR
"""
