# name batch lr tokens extra
B=/work/main/build/tools
cd /work/main
OMP_WAIT_POLICY=passive $B/train --config ${CFG:-tools/bundled-model.json} --data /work/main/data/train/stories.txt --tokenizer data/model --valid data/eval.txt --tokens $4 --context ${CTX:-512} --batch $2 --micro-batch ${MB:-$2} --lr $3 --min-lr ${MIN:-$3} --warmup ${WU:-100} --seed 1 --log /tmp/x/$1.csv --out /tmp/x/$1 --quiet > /tmp/x/$1.out 2>&1
