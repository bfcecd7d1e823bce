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
"""

WHAT_IS_IT = """
(and |so |)what is (it|that|that one|this one)
what (kind|sort) of thing is (it|that)
%TELL (what it is|what that is|more about it|about it)
describe (it|that one|that)
(and |)what exactly is (it|that)
tell me more (about it|about that|)
more (details|detail|about it)
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
"""

IS_IT_COLOUR = """
(and |so |)is (it|that|that one) {colour}
is its %COLOUR {colour}
it is {colour}, (right|isn't it|correct|yes)
(isn't|is not) it {colour}
would you say it is {colour}
do you mean it is {colour}
"""

IS_IT_SHAPE = """
(and |so |)is (it|that|that one) {a_shape}
it is {a_shape}, (right|isn't it|correct|yes)
(isn't|is not) it {a_shape}
would you say it is {a_shape}
do you mean it is {a_shape}
"""

IS_IT_SIZE = """
(and |so |)is (it|that|that one) {bigness}
it is {bigness}, (right|isn't it|correct|yes)
(isn't|is not) it {bigness}
would you (say it is|call it) {bigness}
"""

BIGGER_THAN_IT = """
(and |)is (it|that|that one) {bigger} than the {other}
which is {bigger}, (it|that|that one) or the {other}
"""

LEFT_OF_IT = """
(and |)is it (to the |)left of the {other}
is that (one |)(to the |)left of the {other}
"""

RIGHT_OF_IT = """
(and |)is it (to the |)right of the {other}
is that (one |)(to the |)right of the {other}
"""

ABOVE_IT = """
(and |)is it (above|over|higher than) the {other}
is that (one |)(above|over|higher than) the {other}
"""

BELOW_IT = """
(and |)is it (below|under|beneath|lower than) the {other}
is that (one |)(below|under|lower than) the {other}
"""
