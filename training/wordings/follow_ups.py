"""Frames of questions that lean on what was said before, by type."""

# A frame is one line, however long.
# ruff: noqa: E501

COLOUR_OF_IT = """
(and |so |)what %COLOUR is (it|that|this|that one|this one|the thing)
(and |)which %COLOUR is (it|that|this|that one)
(and |)what is (its|the|it's) %COLOUR
(and |)its %COLOUR
(and |)the %COLOUR
(and |)what about (its|the) %COLOUR
(and |)how about (its|the) %COLOUR
what %COLOUR does (it|that|that one) have
%TELL (what %COLOUR it is|its %COLOUR|the %COLOUR|what %COLOUR that is)
(and |)what %COLOUR
(and |)(in |)which %COLOUR
(and |)%COLOUR
what %COLOUR would you (say|call) (it is|that is|it|that)
how is (it|that|that one) (coloured|colored|painted)
(and |)the %COLOUR of (it|that|that one|this one)
what is the %COLOUR of (it|that|that one|this one)
what %COLOUR was (it|that) again
it is what %COLOUR
what %COLOUR has it (got|)
(okay|nice|great|cool|good), and (the|its|what is its) %COLOUR
do you know (its|the) %COLOUR
does it have a %COLOUR
what %COLOUR did (i|they) (use|paint it|give it)
(nice|great|okay|good|thanks). (which|what) %COLOUR does it have
could you tell me its %COLOUR (as well|too)%PLEASE
please (state|name|give me) its %COLOUR (too|as well|)
what %COLOUR would you say (it|that one) is
i was wondering (what|which) %COLOUR it (is|has)
my (daughter|son|boss|wife|friend) asks (what|which) %COLOUR it is
sorry to bother you, but what %COLOUR is (it|that one)
(quick question: |)(which|what) %COLOUR (has it|is it in)
of (what|which) %COLOUR is (it|that)
(and |)(what|which) (tint|tone|hue|shade) is (it|that|that one)
(and |)in (what|which) %COLOUR (is it|was it) (drawn|painted|done|)
(what|which) %COLOUR was it (painted|drawn|given)
(what|which) %COLOUR has it been (painted|given)
(found|got|i see|i found) it. (what|which) %COLOUR is it
(and |)as for (its|the) %COLOUR
which (crayon|pencil|marker) was used for (it|that)
it has (which|what) %COLOUR
it is (of |in |)which %COLOUR
remind me (what|which) %COLOUR (it|that) (is|was)
(also|now|next), (its|the) %COLOUR
(and |)(name|say|state|tell me|describe) (its|the) %COLOUR
if i had to paint it, (what|which) %COLOUR would i (need|use|take)
%COLOUR of (it|that one)
(can|could) you (make out|recognise|see) (its|the) %COLOUR
"""

SHAPE_OF_IT = """
(and |so |)what shape is (it|that|this|that one|this one|the thing)
(and |)which shape is (it|that|this|that one)
(and |)what is (its|the|it's) (shape|form)
(and |)its (shape|form)
(and |)the (shape|form)
(and |)what about (its|the) (shape|form)
(and |)how about (its|the) (shape|form)
what (shape|form) does (it|that|that one) have
%TELL (what shape it is|its shape|the shape|what shape that is)
(and |)what shape
(and |)which shape
(and |)shape
what shape would you (say|call) (it is|that is|it|that)
(and |)the shape of (it|that|that one|this one)
what is the shape of (it|that|that one|this one)
what shape was (it|that) again
it is what shape
what (kind|sort|type) of (shape|figure) is (it|that|this|that one)
what (shape|form) has it (got|)
(okay|nice|great|cool|good), and (the|its|what is its) shape
do you know (its|the) shape
how is it shaped
remind me, which shape was (that|it)
please (state|name|give me) its (shape|form) (too|as well|)
could you tell me its shape (as well|too)%PLEASE
i was wondering (what|which) shape it (is|has)
my (daughter|son|boss|wife|friend) asks (what|which) shape it is
sorry to bother you, but what shape is (it|that one)
(quick question: |)(which|what) shape (has it|does it have)
of (what|which) (shape|form) is (it|that)
(and |)in (what|which) shape (is it|was it) (drawn|painted|done|)
(what|which) shape was it (drawn|given|made)
(found|got|i see|i found) it. (what|which) shape is it
(and |)as for (its|the) (shape|form)
it has (which|what) (shape|form)
it is (of |)which shape
(also|now|next), (its|the) shape
(and |)(name|say|state|tell me|describe) (its|the) (shape|form)
(can|could) you (make out|recognise|see) (its|the) (shape|form)
(and |)what outline does (it|that|that one) have
what geometric (shape|figure|form) is (it|that|that one)
is it a circle, a square or (what|something else)
is it (round|square|a star) or (what|some other shape)
(what|which) shape (does it make|does it form|did they give it|did they draw)
shape of (it|that one)
and shape-wise
"""

SIZE_OF_IT = """
(and |so |)what size is (it|that|this|that one|this one|the thing)
(and |so |)how (big|large|small) is (it|that|this|that one|this one)
(and |)is (it|that|this|that one) %BIG or %SMALL
(and |)is (it|that|that one) a (%BIG or a %SMALL|%BIG or %SMALL) one
(and |)what is (its|the|it's) size
(and |)its size
(and |)the size
(and |)what about (its|the) size
(and |)how about (its|the) size
what size does (it|that|that one) have
%TELL (what size it is|its size|the size|how big it is|how large that is)
%TELL (if|whether) it is %BIG or %SMALL
(and |)what size
(and |)how (big|large)
%BIG or %SMALL
would you (call|say) it (is |)%BIG or %SMALL
(and |)the size of (it|that|that one|this one)
what is the size of (it|that|that one|this one)
what size was it again
(okay|nice|great|cool|good), and (the|its|what is its) size
(does|did) it look %BIG or %SMALL
how (big|large) would you say (it is|that is)
is it more %BIG or more %SMALL
is it a %BIG one or a %SMALL one
(nice|great|okay|good|thanks). how (big|large) is it
could you tell me (its size|how big it is) (as well|too)%PLEASE
please (state|give me|say) its size (too|as well|)
i was wondering (how big|how large|what size) it is
my (daughter|son|boss|wife|friend) asks (how big|what size|how large) it is
sorry to bother you, but how (big|large) is (it|that one)
(quick question: |)(which|what) size (has it|does it have)
of (what|which) size is (it|that)
(found|got|i see|i found) it. (how big is it|what size is it|is it %BIG or %SMALL)
(and |)as for (its|the) size
it has (which|what) size
it is %BIG or (it is |)%SMALL
(also|now|next), (its|the) size
(and |)(say|state|tell me|describe|estimate) (its|the) size
(and |)size
would you describe it as %BIG or (as |)%SMALL
(and |)size-wise
how (big|large) (was|has) it (been |)(drawn|made)
(did|have) they (draw|drawn|make|made) it %BIG or %SMALL
(does|would) it count as %BIG or %SMALL
in terms of size, (how|what) is it
how much (space|room) does (it|that|that one) take up
size of (it|that one)
"""

WHERE_IS_IT = """
(and |so |)where is (it|that|this|that one|this one|the thing)
(and |)where is (it|that|that one) (located|placed|positioned|situated|drawn|put|sitting)
(and |)where
(and |)where (can|do|could) (i|you|we) (find|see|spot) (it|that|that one)
%TELL (where it is|where that is|its position|its location|where to find it)
(and |)what is its (position|location|place)
(and |)its (position|location|place)
(and |)what about its (position|location|place)
in (what|which) (part|corner|area|region|place|spot) (of the %PIC |)is (it|that|that one)
(on|at) (what|which) side (of the %PIC |)is (it|that|that one)
where in the %PIC (is it|is that|do you see it)
where on the %PIC (is it|is that|do you see it)
(and |)whereabouts (is it|)
(and |)where exactly (is it|)
(can|could) you (locate|find) it
where does (it|that) (sit|lie|appear|stand)
where did (i|they) (put|draw|place) (it|that)
where would you say it is
it is where
which part of the %PIC is (it|that) in
(okay|nice|great|cool|good), and where is (it|that)
where about is it
(locate|find|point out) (it|that one)
(and |)where is (it|that) at
(great|okay|nice|thanks), whereabouts is it
in which part of the %PIC can i find it
on (which|what) place (it is|is it)
where abouts in the %PIC
could you tell me where it is (as well|too)%PLEASE
please (state|give me|say) its (position|location|place) (too|as well|)
i was wondering where it (is|was put|might be)
my (daughter|son|boss|wife|friend) asks where it is
sorry to bother you, but where is (it|that one)
(quick question: |)where (exactly |)(do i find it|was it put|did they put it)
(and |)as for its (position|location|place)
it (sits|lies|is placed|is situated|is positioned) where
(also|now|next), (its|the) (position|location|place)
(and |)(say|state|tell me|describe) (its|the) (position|location|place)
(i don't|i can't) see it. where is it
where (should|must|do) i look (for it|to find it)
where would i (point|put my finger) to (show|touch) it
(and |)(which|what) (spot|place|position|corner|part) (is it in|does it occupy|does it have|does it take)
is it (on the left, on the right or in the middle|at the top, in the middle or at the bottom|left or right|up or down)
(and |)the (position|location|place|whereabouts)
(position|location|place) of (it|that one)
(and |)how is it (positioned|placed)
at (which|what) (place|position|spot) is (it|that)
"""

WHAT_IS_IT = """
(and |so |)what is (it|that|that one|this one)
what (kind|sort) of thing is (it|that)
%TELL (what it is|what that is|more about it|about it)
describe (it|that one|that)
(and |)what exactly is (it|that)
tell me more (about it|about that|)
more (details|detail|about it)
i was wondering what (it|that) is
sorry to bother you, but what is (it|that)
(and |)what would you call (it|that|that one)
(and |)how would you describe (it|that|that one)
(can|could) you (describe|identify|name) (it|that|that one)
(kindly|please) (describe|identify|name) (it|that|that one)
give me (more|all) (details|information) (about|on) (it|that)
(and |)what can you (say|tell me) about (it|that|that one)
it is a what
(found|got|i see) it. what is it
"""

OTHER_ONE = """
(and |so |)what about the other (one|%THING)
(and |so |)how about the other (one|%THING)
(and |)the other (one|%THING)
(and |)what is the other (one|%THING)
%TELL (about|of) the other (one|%THING)
(describe|name|identify) the other (one|%THING)
what (do you see|is there|is) (besides|apart from|other than|in addition to) (it|that|that one)
(and |)what else (is there|do you see|is %HERE|can you see|)
(and |)(is there|do you see|can you see) (anything|something) else
(and |)the (second|remaining) (one|%THING)
what about the (second|remaining) (one|%THING)
(and |)(which|what) is the (second|remaining) (one|%THING)
(okay|nice|great|cool|good), (and|what about|now) the other (one|%THING)
and what would the other (one|%THING) be
(and |)what of the other (one|%THING)
(now |)do the other (one|%THING)
(and |)same (question |)(for|about) the other (one|%THING)
(and |)which (one|%THING) is the other
(and |)(the others|what about the others|the rest|what about the rest)
anything besides (it|that)
any other %THINGS
could you tell me about the other %THING now
(okay|good|thanks), and what can you say (of|about) the other %THING
(and |)what can you (tell me|say) about the other (one|%THING)
i was wondering about the other (one|%THING)
my (daughter|son|boss|wife|friend) asks about the other (one|%THING)
sorry to bother you, but what about the other (one|%THING)
(now |)(move on|go on|continue) (to|with) the other (one|%THING)
(next|now), the other (one|%THING)
(and |)as for the other (one|%THING)
the other (one|%THING), what is (it|that)
what (kind|sort) of %THING is the other one
there is another (one|%THING). what is it
there must be another (one|%THING). what is it
what else (is in there|did they draw|did i draw|was drawn)
(and |)what (do you see|is there) (besides|apart from|next to) that (one|%THING)
(and |)(is there|do you see) (another|a second) (one|%THING)
(and |)is that (all|everything), or is there (more|something else|another one)
(what|which) (one|%THING) (is left|remains|is still missing)
(and |)who is the other (one|guy|fellow)
that was one. (and|what about) the other
one down. (and|what about|now) the other (one|%THING)
please (do|describe|name) the other (one|%THING) (too|as well|)
(kindly|please) tell me about the (remaining|other) (one|%THING)
how would you describe the other (one|%THING)
(and |)(any|some) other (one|%THING)
(what|anything) else (there|here|in the %PIC)
"""

COUNT_TOTAL = """
(and |so |)how many (%THINGS|are there|%THINGS are there) (in total|altogether|in all|overall|all together)
(and |so |)how many are there
(and |)in total
(and |)how many in total
(and |)how many altogether
(and |)how many of (them|these|those) are there
(and |)how many (%THINGS |)do you (see|count) (in total|altogether|in all|overall|)
what is the total (number|count|)
%TELL how many there are (in total|altogether|in all|)
(and |)how many (%THINGS|of them)
(count|count up) (them|them all|all of them|everything)
(and |)(what about|how about) the (total|number|count)
the total (number|count)
(and |)altogether
how many does that make (in total|altogether|)
so how many (%THINGS |)(is that|are there) (in total|altogether|all in all)
all in all how many (%THINGS |)(are there|do you see)
including it, how many (%THINGS |)are there
what does (it|that) (add|come|sum) up to
(okay|nice|great|cool|good), (and |)how many (%THINGS |)are there
(and |)how many %THINGS are in the %PIC in total
how many %THINGS total
what is the overall number of %THINGS, then
so how many %THINGS is that all together
counting everything, how many %THINGS do you see
if you count (it|them all|everything), how many %THINGS (are there|do you get)
i was wondering how many there are (in total|altogether|in all)
my (daughter|son|boss|wife|friend) asks how many there are (in total|altogether|)
sorry to bother you, but how many are there (in all|in total|altogether)
(quick question: |)how many %THINGS (all told|in all|in total)
(and |)all (told|together|in all), how many (are there|%THINGS)
(kindly|please) (state|give me) the total (number |)(of %THINGS|)
(and |)the (full|whole|entire|overall) (count|number)
(and |)what number (do you get|is that|are there) in (all|total)
(and |)what is the (count|number) (of %THINGS|)
(and |)how many (are there|do you see|are shown|are drawn) in the %PIC
the %PIC has how many (%THINGS |)(in total|altogether|in all)
total (number|count) of %THINGS
that one and the others, how many (is that|are there|does that make)
with that one, how many (%THINGS |)are there (in all|altogether)
now count (them|them all|all of them|all the %THINGS)
is (it|that) the only (one|%THING), or how many are there
how many are (they|there) (in sum|in the whole %PIC|as a whole)
how many %THINGS (make up|are in) the whole %PIC
what do they add up to
number of %THINGS (in all|in total|altogether|)
"""

THE_ONE_ON_SIDE = """
(and |so |)what about the (one|%THING) {on_side}
(and |so |)how about the (one|%THING) {on_side}
(and |)the (one|%THING) {on_side}
(and |)what is the (one|%THING) {on_side}
%TELL (about |)the (one|%THING) {on_side}
(describe|name|identify) the (one|%THING) {on_side}
(and |)what about {on_side}
(and |){on_side}
(and |)what is {on_side}
(and |)what do you see {on_side}
(and |)the {side} one
(and |)what about the {side} (one|%THING)
(and |)what is the {side} (one|%THING)
(and |)the {sidemost} (one|%THING)
(and |)what about the {sidemost} (one|%THING)
(okay|nice|great|cool|good), and the (one|%THING) {on_side}
same (question |)(for|about) the (one|%THING) {on_side}
now the (one|%THING) {on_side}
(and |)what of the (one|%THING) {on_side}
(and |)(which|what) %THING is {on_side}
now tell me about the (one|%THING) {on_side}%PLEASE
could you tell me about the (one|%THING) {on_side} (as well|too|now|)
(and |)what can you (tell me|say) about the (one|%THING) {on_side}
i was wondering about the (one|%THING) {on_side}
my (daughter|son|boss|wife|friend) asks about the (one|%THING) {on_side}
sorry to bother you, but what about the (one|%THING) {on_side}
(cheers|thanks|great). (how|what) about the (one|%THING) {on_side}
(next|now|also), the {side} (one|%THING)
(and |)as for the (one|%THING) {on_side}
(and |)as for the {side} (one|%THING)
the {side} (one|%THING), what is (it|that)
the (one|%THING) {on_side}, what is (it|that)
(now |)(move on|go on|continue) (to|with) the (one|%THING) {on_side}
there is a %THING {on_side}. what is it
there is something {on_side}. what is it
(and |)how about the {side} (one|%THING)
(and |)how about the {sidemost} (one|%THING)
%TELL about the {side} (one|%THING)
%TELL about the {sidemost} (one|%THING)
(describe|name|identify) the {side} (one|%THING)
(describe|name|identify) the {sidemost} (one|%THING)
(and |)what kind of %THING is {on_side}
(and |)(which|what) is the {sidemost} (one|%THING)
(and |)who is {on_side}
(kindly|please) (describe|identify) the (one|%THING) {on_side} (too|as well|)
how would you describe the (one|%THING) {on_side}
and then the (one|%THING) {on_side}
same (question |)(for|about) the {side} (one|%THING)
"""

ARE_YOU_SURE = """
are you (sure|certain|positive|confident)
are you (really |absolutely |quite |completely |very |100% |)(sure|certain)
(really|seriously|honestly|truly|for real)
(is that|is this) (right|correct|true|so)
(are you|you are) sure (about|of) (that|it|this)
(you|u) sure
sure
(are you certain|are you positive|are you convinced) (about that|of that|of it|)
(do|would) you (really |)(think|believe|mean) (so|that|it)
(i don't|i do not) believe (you|that|it)
(i doubt|i'm not so sure about|i am not convinced of) (it|that)
(can|could) you (double check|check again|check that|confirm|confirm that|verify that)
(double check|check again|look again|please check|verify)
is that (really |)(right|true|correct|so)
how (sure|certain|confident) are you
no way
are you not mistaken
(you're|you are) (wrong|mistaken|kidding|joking), (right|aren't you|no)
(you don't|don't you|you did not) make (a mistake|mistakes|an error)
that (can't|cannot) be (right|true)
(hm|hmm|uh|wait), (are you sure|really|is that right)
(really|hm|oh). could you double-check (that|it)
you are (quite|really) sure (of|about) that, are you
sure about (that|it|this)
are you (100 percent|a hundred percent|totally|fully|dead) (sure|certain)
(is|was) that your final answer
i (think|believe) you are (wrong|mistaken)
i think (that is|that's|this is) (wrong|not right|incorrect)
(that's|that is|this is) (wrong|not right|incorrect|false|not true)
(that|it) (doesn't|does not) (look|seem|sound) right (to me|)
i (don't|do not) think so
(i was wondering if|i wonder if) (you are sure|that is right|that is correct)
my (daughter|son|boss|wife|friend) (doesn't believe|doubts) (that|it|you)
sorry to bother you, but are you sure
(can|could) (you be|it be that you are) (wrong|mistaken)
(may|might|could) (that|it|this) be (wrong|a mistake|an error)
(can|could|would) you (take another look|look once more|look again|have another look)
(check|look) (once more|one more time|a second time)
(would|could) you bet on (it|that)
can i (trust|rely on|count on) (that|you|it|you on that)
(kindly|please) (confirm|verify|double check) (that|your answer|it)
did you (look|check) (properly|carefully|closely|well)
how (sure|certain|confident) (can you|could you) be (about|of) (that|it)
(is there|any) (no |)(doubt|mistake) (about it|)
you (must|might|could) be (wrong|mistaken|joking|kidding)
(seriously|honestly|really), (is that so|are you sure|is that right)
"""

AND_OBJECT = """
(and |so |)what about the {object}
(and |so |)how about the {object}
and the {object}
the {object}
%TELL (about|more about|something about) the {object}
(describe|tell me about) the {object}
(okay|nice|great|cool|good), and the {object}
same (question |)(for|about) the {object}
what can you (say|tell me) about the {object}
(and |)what of the {object}
(and |)as for the {object}
(next|now|also), the {object}
i was wondering about the {object}
my (daughter|son|boss|wife|friend) asks about the {object}
sorry to bother you, but what about the {object}
could you tell me about the {object} (too|as well|now|)
(now |)(move on|go on|continue) (to|with) the {object}
there is also a {object}. what about (it|that one)
"""

IS_IT_COLOUR = """
(and |so |)is (it|that|that one) {colour}
is its %COLOUR {colour}
it is {colour}, (right|isn't it|correct|yes)
(isn't|is not) it {colour}
would you say it is {colour}
do you mean it is {colour}
true or false: it is {colour}
i think it is {colour}, (am i right|is that right)
does it look {colour}
it is {colour}, (yes or no|true or not)
was it (painted|drawn|coloured) {colour}
is the %COLOUR (of it |){colour}
%TELL (if|whether) it is {colour}
is it true that it is {colour}
does it have the %COLOUR {colour}
is (it|that) a {colour} (one|thing|object)
{colour}, is it
"""

IS_IT_SHAPE = """
(and |so |)is (it|that|that one) {a_shape}
it is {a_shape}, (right|isn't it|correct|yes)
(isn't|is not) it {a_shape}
would you say it is {a_shape}
do you mean it is {a_shape}
true or false: it is {a_shape}
i think it is {a_shape}, (am i right|is that right)
does it look like {a_shape}
it is {a_shape}, (yes or no|true or not)
is its shape (that of |){a_shape}
%TELL (if|whether) it is {a_shape}
is it true that it is {a_shape}
{a_shape}, is it
is (it|that) supposed to be {a_shape}
was it drawn as {a_shape}
would you call (it|that) {a_shape}
could it be {a_shape}
"""

IS_IT_SIZE = """
(and |so |)is (it|that|that one) {bigness}
it is {bigness}, (right|isn't it|correct|yes)
(isn't|is not) it {bigness}
would you (say it is|call it) {bigness}
true or false: it is {bigness}
i think it is {bigness}, (am i right|is that right)
does it look {bigness}
it is {bigness}, (yes or no|true or not)
is its size {bigness}
%TELL (if|whether) it is {bigness}
is it true that it is {bigness}
{bigness}, is it
is (it|that) a {bigness} (one|thing|object)
was it (drawn|made) {bigness}
does it count as {bigness}
could you call it {bigness}
"""

BIGGER_THAN_IT = """
(and |)is (it|that|that one) {bigger} than the {other}
which is {bigger}, (it|that|that one) or the {other}
compared (with|to) the {other}, is it {bigger}
it is {bigger} than the {other}, (right|isn't it|correct|yes or no)
true or false: it is {bigger} than the {other}
would you say it is {bigger} than the {other}
does it look {bigger} than the {other}
%TELL (if|whether) it is {bigger} than the {other}
next to the {other}, is (it|that one) {bigger}
is it true that it is {bigger} than the {other}
do you think it is {bigger} than the {other}
{bigger} than the {other}
was it (drawn|made) {bigger} than the {other}
(and |)is it the {bigger} one compared with the {other}
i was wondering (if|whether) it is {bigger} than the {other}
(and |)in size, is it {bigger} than the {other}
"""

LEFT_OF_IT = """
(and |)is it (to the |)left of the {other}
is that (one |)(to the |)left of the {other}
(compared with|compared to|relative to|in relation to) the {other}, is it (further|farther|more) (to the |)left
it is (to the |on the |)left of the {other}, (right|isn't it|correct|yes or no)
true or false: it is (to the |on the |)left of the {other}
would you say it is (to the |on the |)left of the {other}
does it (sit|lie|appear) (to the |on the |)left of the {other}
%TELL (if|whether) it is (to the |on the |)left of the {other}
is it true that it is (to the |on the |)left of the {other}
is it (further|farther|more) (to the |)left than the {other}
is it (located|placed|situated|positioned) (to the |on the |)left of the {other}
do you think it is (to the |on the |)left of the {other}
(to the |on the |)left of the {other}, (yes or no|or not|is it)
seen from the {other}, is it (over |)(to|on) the left
is it (closer|nearer) to the left (edge|side|) than the {other}
did they (put|draw|place) it (to the |on the |)left of the {other}
i was wondering (if|whether) it is (to the |on the |)left of the {other}
"""

RIGHT_OF_IT = """
(and |)is it (to the |)right of the {other}
is that (one |)(to the |)right of the {other}
(compared with|compared to|relative to|in relation to) the {other}, is it (further|farther|more) (to the |)right
it is (to the |on the |)right of the {other}, (right|isn't it|correct|yes or no)
true or false: it is (to the |on the |)right of the {other}
would you say it is (to the |on the |)right of the {other}
does it (sit|lie|appear) (to the |on the |)right of the {other}
%TELL (if|whether) it is (to the |on the |)right of the {other}
is it true that it is (to the |on the |)right of the {other}
is it (further|farther|more) (to the |)right than the {other}
is it (located|placed|situated|positioned) (to the |on the |)right of the {other}
do you think it is (to the |on the |)right of the {other}
(to the |on the |)right of the {other}, (yes or no|or not|is it)
seen from the {other}, is it (over |)(to|on) the right
is it (closer|nearer) to the right (edge|side|) than the {other}
did they (put|draw|place) it (to the |on the |)right of the {other}
i was wondering (if|whether) it is (to the |on the |)right of the {other}
"""

ABOVE_IT = """
(and |)is it (above|over|higher than) the {other}
is that (one |)(above|over|higher than) the {other}
(compared with|compared to|relative to|in relation to) the {other}, is it (higher|higher up|further up)
it is (above|over|higher than|higher up than) the {other}, (right|isn't it|correct|yes or no)
true or false: it is (above|over|higher than|higher up than) the {other}
would you say it is (above|over|higher than|higher up than) the {other}
does it (sit|lie|appear) (above|over|higher than|higher up than) the {other}
%TELL (if|whether) it is (above|over|higher than|higher up than) the {other}
is it true that it is (above|over|higher than|higher up than) the {other}
is it (higher|higher up|further up) than the {other}
is it (located|placed|situated|positioned) (above|over|higher than|higher up than) the {other}
do you think it is (above|over|higher than|higher up than) the {other}
(above|over|higher than|higher up than) the {other}, (yes or no|or not|is it)
seen from the {other}, is it (above|higher up|up above)
is it (closer|nearer) to the top (edge|) than the {other}
did they (put|draw|place) it (above|over|higher than|higher up than) the {other}
i was wondering (if|whether) it is (above|over|higher than|higher up than) the {other}
"""

BELOW_IT = """
(and |)is it (below|under|beneath|lower than) the {other}
is that (one |)(below|under|lower than) the {other}
(compared with|compared to|relative to|in relation to) the {other}, is it (lower|lower down|further down)
it is (below|under|beneath|underneath|lower than) the {other}, (right|isn't it|correct|yes or no)
true or false: it is (below|under|beneath|underneath|lower than) the {other}
would you say it is (below|under|beneath|underneath|lower than) the {other}
does it (sit|lie|appear) (below|under|beneath|underneath|lower than) the {other}
%TELL (if|whether) it is (below|under|beneath|underneath|lower than) the {other}
is it true that it is (below|under|beneath|underneath|lower than) the {other}
is it (lower|lower down|further down) than the {other}
is it (located|placed|situated|positioned) (below|under|beneath|underneath|lower than) the {other}
do you think it is (below|under|beneath|underneath|lower than) the {other}
(below|under|beneath|underneath|lower than) the {other}, (yes or no|or not|is it)
seen from the {other}, is it (below|lower down|down below)
is it (closer|nearer) to the bottom (edge|) than the {other}
did they (put|draw|place) it (below|under|beneath|underneath|lower than) the {other}
i was wondering (if|whether) it is (below|under|beneath|underneath|lower than) the {other}
"""
